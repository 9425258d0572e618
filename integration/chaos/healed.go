//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

const (
	// For servers to have caught up with each other. One that its leader's log does
	// not bring up to date needs a snapshot, of which a leader makes one a minute.
	healWait  = 2 * time.Minute
	aliveWait = 30 * time.Second // for each worker to make a call after that
)

// healed makes sure that all is as it was before: nobody is cut off or slow, and
// the cluster is whole within a time. A server may keep a replica that never catches
// up, though all is well: each time its leader begins with an entry that does not
// follow on its last. As its operator would, we restart that server, once.
func (r *rig) healed(ctx context.Context, rep *report) error {
	cut, ill := connected(ctx), r.heals(ctx)
	if left, ok := errors.AsType[*leftBehind](ill); ok {
		r.note("%v; %s is restarted", ill, left.server)
		ill = r.postMortem(ctx)
		f := fault{What: "restart", Target: left.server, For: time.Second}
		r.suffer(ctx, &f)
		rep.Faults = append(rep.Faults, f)
		ill = errors.Join(ill, r.heals(ctx))
	}
	if ill != nil {
		ill = errors.Join(fmt.Errorf("not healed within %v: %w", healWait, ill), r.postMortem(ctx))
	}
	return errors.Join(cut, ill)
}

// heals waits until the cluster is whole, for a time.
func (r *rig) heals(ctx context.Context) error {
	seen := caughtUp{}
	for deadline := time.Now().Add(healWait); ; {
		looking, cancel := context.WithTimeout(ctx, 10*time.Second)
		ill := r.whole(looking, seen)
		cancel()
		if ill == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return ill
		}
		wait(ctx, 500*time.Millisecond)
	}
}

// postMortem keeps what each server's goroutines do, and how it stands in each
// group of replicas.
func (r *rig) postMortem(ctx context.Context) error {
	var errs []error
	for _, name := range servers() {
		for file, url := range map[string]string{
			".stacks":    profile(name, 2),
			".raft.json": fmt.Sprintf("http://%s:%d/raftz?acc=JOBS", address(name), monitorPort),
		} {
			asking, cancel := context.WithTimeout(ctx, 5*time.Second)
			b, err := get(asking, url)
			cancel()
			errs = append(errs, err, os.WriteFile(filepath.Join(r.Dir, name+file), b, 0o600))
		}
	}
	return errors.Join(errs...)
}

// connected says what of the network is not as it was.
func connected(ctx context.Context) error {
	for _, name := range everyone() {
		out, err := exec.CommandContext(ctx, "ip", "-n", name, "neigh", "show", "nud", "permanent").Output()
		if err != nil || len(out) > 0 {
			return fmt.Errorf("%s is still cut off: %s %w", name, out, err)
		}
		out, err = exec.CommandContext(ctx, "tc", "-n", name, "qdisc", "show", "dev", link, "root").Output()
		if err != nil || strings.Contains(string(out), "tbf") {
			return fmt.Errorf("%s is still slow: %s %w", name, out, err)
		}
	}
	return nil
}

// caughtUp are the replicas that have been seen to have all that their leader has,
// by what they are of. While jobs are published each is behind now and then.
type caughtUp map[string]bool

// whole says what the cluster lacks: a stream or a consumer without a leader or
// with a replica that never caught up, or one stream too many.
func (c cluster) whole(ctx context.Context, seen caughtUp) error {
	known := append(streams(), "MULLIGAN_EVENTS")
	names := c.js.StreamNames(ctx)
	for name := range names.Name() {
		if !slices.Contains(known, name) {
			return fmt.Errorf("stream %s is still there", name)
		}
	}
	if err := names.Err(); err != nil {
		return err
	}
	var ill []error
	for _, name := range known {
		asking, cancel := context.WithTimeout(ctx, 4*time.Second)
		s, err := c.js.Stream(asking, name)
		cancel()
		if err != nil {
			ill = append(ill, fmt.Errorf("stream %s: %w", name, err))
			continue
		}
		ill = append(ill, seen.look(name, s.CachedInfo().Cluster), c.consumersWhole(ctx, s, seen))
	}
	return errors.Join(ill...)
}

// consumersWhole is whole for the consumers of a stream. The list of their names
// also has those that nobody leads.
func (c cluster) consumersWhole(ctx context.Context, s jetstream.Stream, seen caughtUp) error {
	stream := s.CachedInfo().Config.Name
	all, err := c.consumers(ctx, stream)
	if err != nil {
		return fmt.Errorf("consumers of %s: %w", stream, err)
	}
	led, ill := map[string]bool{}, []error(nil)
	for _, info := range all {
		led[info.Name] = true
		ill = append(ill, seen.look(stream+" "+info.Name, info.Cluster))
	}
	names := s.ConsumerNames(ctx)
	for name := range names.Name() {
		if !led[name] {
			ill = append(ill, fmt.Errorf("%s %s has no leader", stream, name))
		}
	}
	return errors.Join(append(ill, names.Err())...)
}

// leftBehind is a replica that does not have what its leader has.
type leftBehind struct {
	replica, server string
	lag             uint64
	offline         bool
}

func (l *leftBehind) Error() string {
	return fmt.Sprintf("%s is behind by %d, offline: %v", l.replica, l.lag, l.offline)
}

// look says what is not as it should be of a stream or consumer. Those that are
// of a connection, and in one place, have no replicas.
func (seen caughtUp) look(of string, c *jetstream.ClusterInfo) error {
	if c == nil || c.Leader == "" {
		return errors.New(of + " has no leader")
	}
	var ill error
	for _, p := range c.Replicas {
		replica := of + " on " + p.Name
		seen[replica] = seen[replica] || p.Current
		if p.Offline || !seen[replica] {
			ill = &leftBehind{replica, p.Name, p.Lag, p.Offline}
		}
	}
	return ill
}

// allCall returns once each worker has made a call after a time; an error names
// those that did not soon.
func (r *rig) allCall(ctx context.Context, after time.Time, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		idle, err := r.idle(after)
		if err != nil || len(idle) == 0 {
			return err
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("no call within %v by %s, though jobs are published", within, strings.Join(idle, ", "))
		}
		wait(ctx, time.Second)
	}
}

// idle are the workers that have made no call after a time.
func (r *rig) idle(after time.Time) ([]string, error) {
	calls, err := witness.Calls(r.logFile(downstream))
	if errors.Is(err, os.ErrNotExist) { // it has just begun
		err = nil
	}
	return slices.DeleteFunc(workers(), func(name string) bool {
		return slices.ContainsFunc(calls, func(c witness.Call) bool { return c.Worker == name && c.Began.After(after) })
	}), err
}

// inFlight counts the calls that each blow met: one that ended or stopped a worker
// or the downstream.
func inFlight(faults []fault, ev witness.Evidence) {
	for i, f := range faults {
		if !f.blow() {
			continue
		}
		for _, c := range ev.Calls {
			if (f.Target == downstream || f.Target == c.Worker) && c.During(f.began) {
				faults[i].InFlight++
			}
		}
	}
}

// blow reports whether a fault ended or stopped a worker or the downstream.
func (f fault) blow() bool {
	return f.Applied && slices.Contains([]string{"kill", "freeze", "outage"}, f.What) && slices.Contains(append(workers(), downstream), f.Target)
}
