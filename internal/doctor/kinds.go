package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

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
		f.warn("downstreams", fmt.Sprintf("%d downstreams, each with two consumers", n), "let kinds share downstreams: above ten each one slows the others")
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
