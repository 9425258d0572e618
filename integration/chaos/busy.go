//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

const (
	attention = 50 * time.Millisecond  // between looks
	starved   = 300 * time.Millisecond // for which nobody who wants to run may wait
	busyMost  = 20                     // the part of a run that may be so: a twentieth
	around    = 2 * time.Second        // before and after, when those who compute may wait though this program did not: it sleeps, and is preferred
)

// attend notes when the machine had no time for this program, until ctx ends: it had
// none for workers and downstream either, and calls came to nothing though nobody
// drew a fault. A run with much of that tells nothing.
func (r *rig) attend(ctx context.Context) error {
	began, busy := time.Now(), time.Duration(0)
	for ctx.Err() == nil {
		before := time.Now()
		wait(ctx, attention)
		late := time.Since(before) - attention
		if late < starved {
			continue
		}
		busy += late
		r.mu.Lock()
		r.faults = append(r.faults, witness.Fault{At: before.Add(-around), For: attention + late + 2*around, What: "busy machine", Target: "workers to " + downstream})
		r.mu.Unlock()
	}
	if took := time.Since(began); busy*busyMost > took {
		return fmt.Errorf("the machine had no time for %v of %v: have fewer runs at once (-parallel), or nothing beside them", busy.Round(time.Millisecond), took.Round(time.Second))
	}
	return nil
}
