package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// A world is where one scenario is lived through.
type world struct {
	scenario
	tape
	env   *natstest.Env
	seats []*seat
	watch *watch
}

// Budgets are small, so that they bind.
const (
	taskRetries = 3
	tokenCap    = 3
	tokenRatio  = 0.1
)

func userRate() budget.Rate { return budget.Rate{PerSecond: 1, Burst: 2} }

const patience = 30 * time.Minute // until everything that is left has ended

// live lives a scenario through, in a bubble of its own.
func live(t *testing.T, s scenario) *story {
	natstest.Present()
	w := &world{scenario: s, env: natstest.InBubble(t), tape: tape{effects: map[string]int{}, began: time.Now()}}
	w.env.Conn.SetErrorHandler(nil) // that it was away is no news
	w.env.Provision(t, mulligan.Topology{})
	w.watch = observe(t, w.env)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var lives, days sync.WaitGroup
	for i, name := range seats() {
		st := &seat{name: name, env: w.env, run: w.runner(i), note: w.happened}
		for _, f := range s.Faults {
			if f.Point > 0 && f.Seat == i {
				st.fates = append(st.fates, &fate{fault: f})
			}
		}
		w.seats = append(w.seats, st)
		lives.Go(func() {
			if err := st.occupy(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range s.Messages {
		days.Go(func() { w.publish(ctx, i) })
	}
	for _, at := range s.Visits {
		days.Go(func() { w.attend(ctx, at) })
	}
	w.mishaps(t, ctx)
	days.Wait()
	w.heal(t)
	stuck := w.settle(t)
	end()
	lives.Wait()
	return w.tell(t, stuck)
}

func (w *world) runner(i int) func(p *process) error {
	switch i {
	case scheduling:
		return func(p *process) error { return (&scheduler.Scheduler{Conn: p.conn}).Run(p.ctx) }
	case publishing, attending: // they act by themselves
		return func(p *process) error {
			<-p.ctx.Done()
			return nil
		}
	}
	return func(p *process) error {
		worker := &consumer.Worker{Conn: p.conn, Concurrency: w.Slots, UserRate: userRate(), Downstreams: map[string]consumer.Downstream{}}
		for _, d := range downstreams() {
			worker.Downstreams[d] = consumer.Downstream{Cap: tokenCap, Ratio: tokenRatio, Floor: w.Floor}
		}
		for _, k := range w.kinds() {
			worker.Handle(k, w.handler(p))
		}
		return worker.Run(p.ctx)
	}
}

// kinds are one for each effect and downstream.
func (w *world) kinds() (all []mulligan.Kind) {
	for _, d := range downstreams() {
		for _, e := range []mulligan.Effect{mulligan.Pure, mulligan.Keyed, mulligan.Once} {
			all = append(all, mulligan.Kind{Name: kindOf(key{Effect: e, Downstream: d}), Effect: e, Downstream: d,
				Policy: mulligan.Policy{Attempts: w.Attempts, Total: w.Total, Timeout: timeout}})
		}
	}
	return all
}

func kindOf(k key) string { return k.Downstream + "." + string(k.Effect) }

// idOf is plain for every other key.
func idOf(i int) string {
	if i%2 == 0 {
		return fmt.Sprint("order-", i)
	}
	return fmt.Sprint("order ", i, "/ü.*>")
}

func (s scenario) recordKey(i int) string {
	return mulligan.RecordKey(kindOf(s.Keys[i]), mulligan.Token(idOf(i)))
}

func (s scenario) keyOf(j *mulligan.Job) key {
	return s.keyNamed(mulligan.RecordKey(j.Kind, mulligan.Token(j.ID)))
}

func (s scenario) keyNamed(record string) key {
	for i, k := range s.Keys {
		if s.recordKey(i) == record {
			return k
		}
	}
	panic("no key " + record)
}

// payloadOf has bytes of every kind.
func (s scenario) payloadOf(m message) string {
	return fmt.Sprintf("\x00\r\n\xff payload of %d, other %v", m.Key, m.Other)
}

// mishaps has those faults happen that have a time.
func (w *world) mishaps(t *testing.T, ctx context.Context) {
	timed := slices.DeleteFunc(slices.Clone(w.Faults), func(f fault) bool { return f.Point > 0 })
	slices.SortStableFunc(timed, func(a, b fault) int { return int(a.At - b.At) })
	for _, f := range timed {
		sleep(ctx, time.Until(w.began.Add(f.At)))
		w.mishap(t, f)
	}
}

func (w *world) mishap(t *testing.T, f fault) {
	if slices.Contains([]mishap{crash, freeze, stall, leave}, f.What) {
		if p := w.seats[f.Seat].current(); p != nil {
			p.suffer(f)
		}
		return
	}
	w.happened(f)
	switch f.What {
	case down:
		w.env.Down()
		time.Sleep(f.For)
		w.env.Restart(t)
	case records:
		back := w.reconfigure(t, w.env.Topology.LedgerBucket(), refuse)
		time.Sleep(f.For)
		back()
	case budgets:
		back := w.reconfigure(t, w.env.Topology.BudgetBucket(), listenElsewhere)
		time.Sleep(f.For)
		back()
	case forget:
		w.forget(t, f)
	case passed:
		w.passOver(t, f)
	case ahead, behind:
		w.misdate(t, f)
	case skew:
		w.skew(t, f)
	}
}

// heal ends every fault that lasts.
func (w *world) heal(t *testing.T) {
	for _, s := range w.seats {
		s.spare()
	}
	for !w.quiet() {
		time.Sleep(time.Second)
	}
	w.say("healed")
}

func (w *world) quiet() bool {
	return !slices.ContainsFunc(w.seats, func(s *seat) bool { return !s.quiet() })
}

// settle waits until no message is left and no handler runs, and says what is
// left if that never comes.
func (w *world) settle(t *testing.T) (stuck string) {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(2 * time.Second) {
		if w.idle("") && w.env.Held(t) == 0 {
			time.Sleep(2 * time.Second) // for who records and removes letters
			if w.idle("") && w.env.Held(t) == 0 {
				return ""
			}
		}
	}
	return fmt.Sprintf("%+v", w.env.Account(t))
}

func (w *world) tell(t *testing.T, stuck string) *story {
	s := &story{scenario: w.scenario, tape: &w.tape, stuck: stuck, over: time.Now(), records: w.env.Records(t), revisions: w.watch.end()}
	letters, err := (&scheduler.Scheduler{Conn: w.env.Conn}).Letters(t.Context(), scheduler.Query{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	s.letters = letters
	return s
}
