package consumer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// Two workers share a consumer that is made again. Each knows of what it is given
// then that it may have been delivered before, whatever the other was given.
func TestWhatAConsumerMadeAgainDeliversMayBeOld(t *testing.T) {
	for _, c := range []struct {
		name  string
		first int // jobs that the other worker is given before this one, of the new consumer
	}{
		{"to another worker first", 1},
		{"to another worker nearly all", 2},
		{"what runs here comes first", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := natstest.InBubble(t)
				e.Provision(t, mulligan.Topology{})
				one, other := puller(t, e), puller(t, e)
				time.Sleep(time.Second) // so that jobs are published later than that
				for _, id := range []string{"a", "b", "c"} {
					publishTo(t, e, id)
				}
				if d := one.take(t, 1)[0]; d.old || !one.l.w.hand.begin(d, d.signed) {
					t.Fatalf("a job just published is taken for old: %v", d.old)
				}
				other.take(t, 2)
				q := one.l.fresh.Queue
				if err := e.JS.DeleteConsumer(t.Context(), q.Stream, q.Durable); err != nil {
					t.Fatal(err)
				}
				if err := e.Topology.EnsureConsumers(t.Context(), e.JS, []string{mulligan.DefaultDownstream}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second) // nobody pulls, as while all slots are at work
				for _, d := range other.take(t, c.first) {
					if !d.old {
						t.Errorf("the other worker takes %s for new", d.env.ID)
					}
				}
				for _, d := range one.take(t, 3-c.first) {
					if !d.old {
						t.Errorf("this worker takes %s for new, which is delivery %d", d.env.ID, d.nth)
					}
				}
			})
		})
	}
}

// Several loops pull from one consumer. What one of them is given first, after the
// consumer was reset, is behind what another was given before.
func TestAPullOfAnotherLoopShowsThatAConsumerBeganAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		s := puller(t, e).l.fresh
		time.Sleep(time.Second)
		published := time.Now()
		before := &delivery{nth: 3, stored: published}
		s.follow(before, s.last())
		time.Sleep(time.Second)
		after := &delivery{nth: 1, stored: published}
		s.follow(after, s.last())
		next := &delivery{nth: 2, stored: time.Now().Add(time.Second)}
		s.follow(next, s.last())
		if before.old || !after.old || next.old {
			t.Errorf("old: before the reset %v, the first after it %v, one published since %v; want only the second", before.old, after.old, next.old)
		}
	})
}

// hands pulls for a worker that does not run.
type hands struct {
	l    *lane
	last uint64
}

func puller(t *testing.T, e *natstest.Env) *hands {
	t.Helper()
	w := &Worker{Conn: e.Conn}
	w.Handle(mulligan.Kind{Name: "story.told", Effect: mulligan.Pure}, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }))
	if err := w.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &hands{l: w.lanes[0]}
}

// take pulls n jobs; what runs here already is not among those it returns.
func (h *hands) take(t *testing.T, n int) (all []*delivery) {
	t.Helper()
	if n == 0 {
		return nil
	}
	s := h.l.fresh
	if err := h.l.fetch(t.Context(), s, n, func(d *delivery) { h.last = s.follow(d, h.last) }); err != nil {
		t.Fatal(err)
	}
	for len(s.pulled) > 0 {
		all = append(all, <-s.pulled)
	}
	return all
}

func publishTo(t *testing.T, e *natstest.Env, id string) {
	t.Helper()
	if _, err := e.JS.Publish(t.Context(), mulligan.Subject(e.Topology.JobsRoot(), "story.told", id), nil); err != nil {
		t.Fatal(err)
	}
}
