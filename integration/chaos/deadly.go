//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

// obey kills each worker that makes a call of a deadly job, until ctx ends: as a
// job does that takes all memory.
func (r *rig) obey(ctx context.Context) error {
	log, err := os.Open(r.logFile(downstream))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // it was only read
	in, half := bufio.NewReader(log), []byte(nil)
	for ctx.Err() == nil {
		line, err := in.ReadBytes('\n')
		half = append(half, line...)
		switch {
		case errors.Is(err, io.EOF): // so far
			wait(ctx, 100*time.Millisecond)
			continue
		case err != nil:
			return err
		}
		if worker := witness.Killed(half); worker != "" && r.processes[worker].pid() != 0 {
			r.suffer(ctx, &fault{What: "kill", Target: worker, For: time.Second})
		}
		half = nil
	}
	return nil
}
