//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// apply makes a fault happen, and returns once that is over and healed. An
// error says that it could not happen as drawn, or not be healed.
func (r *rig) apply(ctx context.Context, f fault) error {
	switch f.What {
	case "kill":
		return r.down(ctx, f, syscall.SIGKILL)
	case "terminate":
		return r.down(ctx, f, syscall.SIGTERM)
	case "freeze":
		p := r.processes[f.Target]
		p.signal(syscall.SIGSTOP)
		wait(ctx, f.For)
		p.signal(syscall.SIGCONT)
		return nil
	case "step down":
		return r.stepDown(ctx, f)
	case "cut", "cut one way", "cut other way", "isolate":
		return silenced(ctx, f)
	case "slow":
		if err := slow(ctx, f.Target, f.With); err != nil {
			return err
		}
		wait(ctx, f.For)
		return fast(context.WithoutCancel(ctx), f.Target)
	case "reset links":
		return reset(ctx, f.Target)
	case diskFull:
		return r.fullDisk(ctx, f)
	case "store full":
		return r.fullStore(ctx, f)
	case "upgrade":
		return r.upgrade(ctx)
	case "recreate":
		name, err := r.recreate(ctx, f)
		r.say("recreated %s", name)
		return err
	case "reset consumer":
		name, err := r.resetConsumer(ctx, f)
		r.say("reset %s", name)
		return err
	case "outage":
		return r.outage(ctx, f)
	}
	return fmt.Errorf("nobody knows how to %s", f.What)
}

// down ends a process for a while.
func (r *rig) down(ctx context.Context, f fault, s syscall.Signal) error {
	p := r.processes[f.Target]
	ended := p.end(s)
	wait(ctx, f.For)
	return errors.Join(ended, p.start())
}

// silenced cuts the ways of a fault for its time.
func silenced(ctx context.Context, f fault) error {
	always := context.WithoutCancel(ctx)
	var errs []error
	ways := f.ways()
	for _, w := range ways {
		errs = append(errs, w.silence(always))
	}
	wait(ctx, f.For)
	for _, w := range ways {
		errs = append(errs, w.heal(always))
	}
	return errors.Join(errs...)
}

// ways are those that a fault silences.
func (f fault) ways() (ways []way) {
	switch f.What {
	case "cut":
		return []way{{f.Target, f.With}, {f.With, f.Target}}
	case "cut one way":
		return []way{{f.Target, f.With}}
	case "cut other way":
		return []way{{f.With, f.Target}}
	case "isolate":
		// A server from everybody, a worker from the servers.
		others := servers()
		if slices.Contains(servers(), f.Target) {
			others = places()
		}
		for _, other := range others {
			if other != f.Target {
				ways = append(ways, way{f.Target, other}, way{other, f.Target})
			}
		}
	}
	return ways
}

// upgrade replaces the workers by those of the next version, one after the other.
func (r *rig) upgrade(ctx context.Context) error {
	var errs []error
	for _, name := range workers() {
		errs = append(errs, r.processes[name].become(r.worker(name, 2), syscall.SIGTERM))
		wait(ctx, 2*time.Second)
	}
	return errors.Join(errs...)
}
