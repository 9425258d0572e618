//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// fullDisk fills the small disk. The server gives JetStream up when it notices;
// as its operator would, we make room and start it again.
func (r *rig) fullDisk(ctx context.Context, f fault) error {
	if err := fill(r.Dir); err != nil {
		return notApplied(errors.Join(err, os.Remove(ballast(r.Dir))))
	}
	wait(ctx, f.For)
	p := r.processes[f.Target]
	return errors.Join(os.Remove(ballast(r.Dir)), p.end(syscall.SIGTERM), p.start())
}

// fill takes all that is free on the small disk.
func fill(dir string) error {
	f, err := os.Create(ballast(dir))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it is full, or the error below says why not
	chunk := make([]byte, 64<<10)
	for len(chunk) > 0 {
		_, err := f.Write(chunk)
		if errors.Is(err, syscall.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ballast(dir string) string { return filepath.Join(storeOf(dir, smallDisk), "ballast") }

const (
	foreign               = "FOREIGN" // somebody else's stream, on the small disk alone
	insufficientResources = 10023     // what the server says at its limit
)

// fullStore fills what JetStream may use of the small disk. The server refuses
// what it leads and falls behind in the rest, until the stream that fills it goes.
func (r *rig) fullStore(ctx context.Context, f fault) error {
	filled := r.fillStore(ctx)
	if filled == nil {
		wait(ctx, f.For)
	}
	return errors.Join(notApplied(filled), r.emptyStore(context.WithoutCancel(ctx)))
}

// fillStore publishes until the server refuses.
func (c cluster) fillStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := c.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: foreign, Subjects: []string{foreign}, Placement: &jetstream.Placement{Tags: []string{smallDisk}},
	}); err != nil {
		return fmt.Errorf("create %s: %w", foreign, err)
	}
	for chunk := make([]byte, 512<<10); ; {
		_, err := c.js.Publish(ctx, foreign, chunk)
		if refused := (*jetstream.APIError)(nil); errors.As(err, &refused) && refused.ErrorCode == insufficientResources {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fill %s: %w", foreign, err)
		}
	}
}

// emptyStore deletes what fillStore made, as soon as there is a leader to ask. What
// is asked of one that is just killed is asked of the next: as long as the stream is
// there its server takes nothing in, and refuses for all others.
func (c cluster) emptyStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		asking, answered := context.WithTimeout(ctx, 5*time.Second)
		err := c.js.DeleteStream(asking, foreign)
		answered()
		if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("delete %s: %w", foreign, err)
		}
		wait(ctx, 200*time.Millisecond)
	}
}
