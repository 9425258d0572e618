package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// kinds checks that each kind that was declared is served.
func (f *findings) kinds(ctx context.Context) bool {
	kinds, err := f.Topology.Kinds(ctx, f.js)
	if err != nil {
		f.fail("kinds", err.Error(), "check that this user may read the bucket of kinds")
		return true
	}
	f.consumers(ctx, kinds)
	f.uncovered(ctx, kinds)
	f.downstreams(kinds)
	f.workers(ctx, kinds)
	f.schedulers(ctx)
	return true
}

func downstreams(kinds []mulligan.Kind) []string {
	var names []string
	for _, k := range kinds {
		if !slices.Contains(names, k.Downstream) {
			names = append(names, k.Downstream)
		}
	}
	slices.Sort(names)
	return names
}

func (f *findings) downstreams(kinds []mulligan.Kind) {
	const most = 10 // beyond, each consumer costs the others acknowledgements
	n := len(downstreams(kinds))
	if n > most {
		f.warn("downstreams", fmt.Sprintf("%d downstreams, each with three consumers", n), "let kinds share downstreams: above ten each one slows the others")
		return
	}
	f.ok("downstreams", "%d, for %d kinds", n, len(kinds))
}

func (f *findings) workers(ctx context.Context, kinds []mulligan.Kind) {
	const check = "workers"
	live, err := Live(ctx, f.Conn, f.Topology, consumer.ServiceName)
	if err != nil {
		f.warn(check, err.Error(), "check that this user may publish to $SRV.>")
		return
	}
	f.declarations(kinds, live)
	f.held(ctx)
	var idle []string
	for _, k := range kinds {
		if !slices.ContainsFunc(live, func(p Process) bool { return slices.Contains(p.Kinds, k.Name) }) {
			idle = append(idle, k.Name)
		}
	}
	if len(idle) > 0 {
		f.warn(check, fmt.Sprintf("no live worker serves %s", strings.Join(idle, ", ")), "start a worker with these kinds: their jobs wait")
		return
	}
	f.ok(check, "%d live, every kind is served", len(live))
}

// held says which downstreams hold their jobs back, in which workers, and which
// could be kept down by their retries.
func (f *findings) held(ctx context.Context) {
	all, err := states(ctx, f.Conn, f.Topology)
	if err != nil {
		return // reported for the workers
	}
	free := 0
	for _, w := range all {
		free += f.heldBy(w)
	}
	f.taken(ctx, all)
	if free > 0 {
		f.ok("holds", "%d downstreams of %d workers are not held", free, len(all))
	}
}

// heldBy is held for one worker, and returns how many it does not hold.
func (f *findings) heldBy(w consumer.State) (free int) {
	for _, d := range w.Downstreams {
		check := "downstream " + d.Name
		for _, line := range d.Warnings {
			what, remedy, _ := strings.Cut(strings.TrimPrefix(line, check+": "), ": ")
			f.warn(check, what, remedy)
		}
		where := "by worker " + w.Host + "/" + w.PID
		f.stuck(d, "seen "+where)
		switch {
		case d.CredentialRefused:
			f.fail(check, "it refuses the credential; held "+where, "renew the credential: the jobs wait until a probe is accepted")
		case d.OneUser == "credential":
			f.warn(check, "it refuses one user's credential, "+where+"; not held for that", "renew it; if all jobs are one user's, name none, and the downstream is held instead")
		case d.OneUser != "":
			f.warn(check, "most calls fail, all of one user, "+where+"; not held for that", "see what they fail of; if all jobs are one user's, name none, and the downstream is held instead")
		case d.Held == "gate":
			f.warn(check, "it asked to wait; held "+where+" until "+d.Until.UTC().Format(time.TimeOnly)+" UTC", "nothing, unless it goes on: then ask it for less, with a lower concurrency")
		case d.Held == "probe":
			f.warn(check, "most of its calls failed; probed "+where, "nothing: its jobs go on once probes succeed")
		case d.Held != "":
			f.warn(check, "most of its calls fail; held "+where+" until "+d.Until.UTC().Format(time.TimeOnly)+" UTC", "see what its calls fail of, in the worker's log or mulligan_attempts_total; the jobs wait, and go on by themselves")
		default:
			free++
		}
	}
	return free
}

// declarations compares what live workers declare with what the last one wrote:
// two that disagree run the same jobs by different rules.
func (f *findings) declarations(kinds []mulligan.Kind, live []Process) {
	const check = "declarations"
	agree := true
	for _, k := range kinds {
		for _, p := range live {
			own, tells := p.Declared[k.Name]
			if !tells || own.Fingerprint == k.Fingerprint() {
				continue
			}
			agree = false
			what := fmt.Sprintf("effect %s in both, but other settings", k.Effect)
			if own.Effect != k.Effect {
				what = fmt.Sprintf("effect %s there, %s in the bucket", own.Effect, k.Effect)
			}
			f.warn(check, fmt.Sprintf("kind %s is declared differently by worker %s/%s than in the bucket: %s", k.Name, p.Host, p.PID, what),
				"give all its workers one declaration and the same version of this program, and start them again")
		}
	}
	if agree && len(live) > 0 {
		f.ok(check, "live workers declare their kinds as the bucket has them")
	}
}

func (f *findings) schedulers(ctx context.Context) {
	const check = "schedulers"
	live, err := Live(ctx, f.Conn, f.Topology, scheduler.ServiceName)
	switch {
	case err != nil:
		f.warn(check, err.Error(), "check that this user may publish to $SRV.>")
	case len(live) == 0:
		f.warn(check, "none is alive", "run `mulligan scheduler`: spent jobs wait for one")
	default:
		f.ok(check, "%d live", len(live))
	}
}
