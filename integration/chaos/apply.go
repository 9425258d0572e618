//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

// errNotApplied: nothing was done of a fault, which is no excuse then.
var errNotApplied = errors.New("not applied")

func notApplied(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errNotApplied, err)
}

// apply makes a fault happen, and returns once that is over and healed. An error
// that is not errNotApplied says that it happened otherwise than drawn.
func (r *rig) apply(ctx context.Context, f fault) error {
	switch f.What {
	case "kill":
		return r.down(ctx, f, syscall.SIGKILL)
	case "terminate", "restart":
		return r.down(ctx, f, syscall.SIGTERM)
	case "freeze":
		return r.freeze(ctx, f)
	case "step down":
		return r.stepDown(ctx, f)
	case "cut", "cut one way", "cut other way", "isolate":
		return r.silenced(ctx, f)
	case "slow":
		if err := slow(ctx, f.Target, f.With); err != nil {
			return notApplied(err)
		}
		wait(ctx, f.For)
		return fast(context.WithoutCancel(ctx), f.Target)
	case "reset links":
		return notApplied(reset(ctx, f.Target))
	case diskFull:
		return r.fullDisk(ctx, f)
	case "store full":
		return r.fullStore(ctx, f)
	case "upgrade":
		return r.upgrade(ctx)
	case "recreate":
		return r.recreate(ctx, f)
	case resetConsumer:
		return r.resetConsumer(ctx, f)
	case "outage":
		return r.outage(ctx, f)
	}
	return notApplied(fmt.Errorf("nobody knows how to %s", f.What))
}

// down ends a process for a while.
func (r *rig) down(ctx context.Context, f fault, s syscall.Signal) error {
	p := r.processes[f.Target]
	if p.pid() == 0 {
		return notApplied(fmt.Errorf("%s does not run", f.Target))
	}
	if f.Target == operator && s == syscall.SIGKILL {
		r.untilAtWork(ctx)
	}
	r.broke(p.end(s))
	wait(ctx, f.For)
	if err := p.start(); err != nil || f.Target != downstream {
		return err
	}
	return served(context.WithoutCancel(ctx))
}

// served waits until the downstream takes calls: it reads all its log first.
func served(ctx context.Context) error {
	const patience = time.Minute
	for deadline := time.Now().Add(patience); ; wait(ctx, 20*time.Millisecond) {
		c, err := net.DialTimeout("tcp", address(downstream)+downstreamPort, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the downstream takes no calls after %v: %w", patience, err)
		}
	}
}

// untilAtWork waits for the operator to begin something, for a while.
func (r *rig) untilAtWork(ctx context.Context) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; {
		if witness.AtWork(r.logFile(operator)) {
			return
		}
		wait(ctx, 5*time.Millisecond)
	}
}

func (r *rig) freeze(ctx context.Context, f fault) error {
	p := r.processes[f.Target]
	if !p.freeze() {
		return notApplied(fmt.Errorf("%s does not run", f.Target))
	}
	wait(ctx, f.For)
	p.thaw()
	return nil
}

// silenced cuts the ways of a fault for its time.
func (r *rig) silenced(ctx context.Context, f fault) error {
	if f.With == itsServer {
		var err error
		if f.With, err = serverOf(ctx, f.Target); err != nil {
			return notApplied(err)
		}
		r.say("%s is connected to %s", f.Target, f.With)
	}
	always := context.WithoutCancel(ctx)
	var errs []error
	for i, w := range f.ways() {
		if err := w.silence(always); err != nil {
			errs = append(errs, err)
			if i == 0 {
				return notApplied(err)
			}
		}
	}
	wait(ctx, f.For)
	for _, w := range f.ways() {
		errs = append(errs, w.heal(always))
	}
	return errors.Join(append(errs, noticed(always, f.ways(), f.For))...)
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
			others = everyone()
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
		p := r.processes[name]
		r.broke(p.end(syscall.SIGTERM))
		errs = append(errs, p.become(r.worker(name, 2)))
		wait(ctx, 2*time.Second)
	}
	return errors.Join(errs...)
}
