package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// Growth are the cases of how much more of something costs. They have no goals, and
// are measured by name.
func Growth() (all []Case) {
	for _, g := range []struct {
		growth
		to []int
	}{
		{stored(), []int{10_000, 100_000, 1_000_000}},
		{manyKinds(), []int{100, 1000}},
		{manyDownstreams(), []int{10, 30}},
		{users(), []int{10_000, 100_000, 1_000_000}},
	} {
		for _, n := range g.to {
			all = append(all, g.of(n))
		}
	}
	return all
}

// A growth is some work beside few of something, and beside many.
type growth struct {
	name     string
	few      int
	about    string
	measures []Measure
	do       func(ctx context.Context, f *field, n int) ([]float64, error)
}

func (g growth) of(n int) Case {
	beside := func(n int) side {
		return func(ctx context.Context, f *field) ([]float64, error) { return g.do(ctx, f, n) }
	}
	return Case{
		Name: fmt.Sprintf("%s-%d", g.name, n), About: g.about, Against: fmt.Sprint(g.few), Measures: g.measures,
		rounds: 1, // the server keeps the memory that it had in the first
		bare:   beside(g.few), ours: beside(n),
	}
}

// some jobs are published and done beside what there is much of.
const some = 5000

// held is how much memory the server has more than before, for each of n.
func (f *field) held(before, n int) float64 { return float64(f.server.memory()-before) / float64(n) }

// stored has jobs published and done while others wait.
func stored() growth {
	return growth{
		name: "stored", few: 1000,
		about: fmt.Sprintf("publish %d jobs of 256 B, 16 at once, and run as many, while others of 256 B are stored; as many by the bare loop before", some),
		measures: []Measure{
			{Name: "publish", Unit: "/s"}, {Name: "run, bare", Unit: "/s"}, {Name: "run", Unit: "/s"},
			{Name: "server memory", Unit: "B/job", AtMost: true, Alone: true},
		},
		do: func(ctx context.Context, f *field, n int) ([]float64, error) {
			before := f.server.memory()
			if err := f.fillBare(ctx, pure, n, small); err != nil {
				return nil, err
			}
			held := f.held(before, n)
			published, err := timed(some, func() error {
				return share(some, 16, func(i int) error {
					_, err := f.pub.Publish(ctx, job(pure, n+i, small))
					return err
				})
			})
			if err != nil {
				return nil, err
			}
			nothing := func() error { return nil }
			more := func(i int) *nats.Msg { return f.message(pure, n+some+i, small) }
			if err := f.fill(ctx, 2*some, more); err != nil { // the bare loop keeps some of them
				return nil, err
			}
			bare, err := taken(ctx, some, func(ctx context.Context, took func()) error {
				return f.loop(ctx, pure, 16, func(_ context.Context, m jetstream.Msg) error {
					took()
					return m.Ack()
				})
			}, nothing)
			if err != nil {
				return nil, err
			}
			ran, err := taken(ctx, some, func(ctx context.Context, took func()) error {
				return f.work(ctx, pure, 16, func(context.Context, *mulligan.Job) ([]byte, error) {
					took()
					return nil, nil
				})
			}, nothing)
			if err != nil {
				return nil, err
			}
			return []float64{published[0], bare[0], ran[0], held}, nil
		},
	}
}

// manyKinds has one downstream with many kinds.
func manyKinds() growth {
	return growth{
		name: "kinds", few: 10,
		about:    fmt.Sprintf("start a worker with that many kinds of one downstream, and run %d jobs of 256 B of all of them", some),
		measures: started(),
		do: func(ctx context.Context, f *field, n int) ([]float64, error) {
			return f.crowd(ctx, n, func(int) string { return "crowd" })
		},
	}
}

// manyDownstreams has one kind in each downstream.
func manyDownstreams() growth {
	return growth{
		name: "downstreams", few: 1,
		about:    fmt.Sprintf("start a worker with that many downstreams of a kind each, and run %d jobs of 256 B of all of them", some),
		measures: started(),
		do: func(ctx context.Context, f *field, n int) ([]float64, error) {
			return f.crowd(ctx, n, func(i int) string { return fmt.Sprint("crowd-", i) })
		},
	}
}

func started() []Measure {
	return []Measure{
		{Name: "start", Unit: "s", AtMost: true}, {Name: "run", Unit: "/s"},
		{Name: "cpu", Unit: "µs", AtMost: true}, {Name: "server memory", Unit: "KiB each", AtMost: true, Alone: true},
	}
}

// crowd starts a worker with n kinds, and runs jobs of all of them.
func (f *field) crowd(ctx context.Context, n int, downstream func(i int) string) ([]float64, error) {
	name := func(i int) string { return fmt.Sprint("crowd.kind-", i%n) }
	before := f.server.memory()
	if err := f.fill(ctx, some, func(i int) *nats.Msg { return f.message(name(i), i, small) }); err != nil {
		return nil, err
	}
	var first atomic.Int64
	began := time.Now()
	figures, err := taken(ctx, some, func(ctx context.Context, took func()) error {
		w := &consumer.Worker{Conn: f.conn, Topology: f.top}
		for i := range n {
			w.Handle(mulligan.Kind{Name: name(i), Effect: mulligan.Pure, Downstream: downstream(i)},
				mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) {
					first.CompareAndSwap(0, int64(time.Since(began)))
					took()
					return nil, nil
				}))
		}
		return w.Run(ctx)
	}, func() error { return nil })
	if err != nil {
		return nil, err
	}
	return []float64{time.Duration(first.Load()).Seconds(), figures[0], figures[1], f.held(before, n) / (1 << 10)}, nil
}

// users has jobs fail whose users have a budget, beside those of many others.
func users() growth {
	return growth{
		name: "users", few: 1000,
		about: fmt.Sprintf("run %d jobs of a user each, of which every third fails once and is tried again after %v, beside the budgets of that many users", some, firstDelay),
		measures: []Measure{
			{Name: "run", Unit: "/s"}, {Name: "cpu", Unit: "µs", AtMost: true},
			{Name: "server memory", Unit: "B/user", AtMost: true, Alone: true},
		},
		do: func(ctx context.Context, f *field, n int) ([]float64, error) {
			before := f.server.memory()
			state, err := json.Marshal(budget.UserState{Whole: time.Now(), Granted: 1})
			if err != nil {
				return nil, err
			}
			err = f.fill(ctx, n, func(i int) *nats.Msg {
				return &nats.Msg{Subject: "$KV." + f.top.BudgetBucket() + ".user." + mulligan.Token(user(i)), Data: state, Header: nats.Header{"Nats-TTL": {"1h"}}}
			})
			if err != nil {
				return nil, err
			}
			held := f.held(before, n)
			for i := range some {
				j := job(pure, i, small)
				j.User = user(i)
				if _, err := f.pub.Publish(ctx, j); err != nil {
					return nil, err
				}
			}
			policy := mulligan.Policy{Attempts: 4, Total: time.Minute, FirstDelay: firstDelay, MaxDelay: time.Second}
			var count atomic.Int64
			figures, err := f.drained(ctx, some, func(ctx context.Context, took func()) error {
				return f.eager(16, policy, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
					if j.Attempt == 1 && count.Add(1)%3 == 0 {
						return nil, errAgain
					}
					took()
					return nil, nil
				}).Run(ctx)
			})
			if err != nil {
				return nil, err
			}
			return append(figures[:2], held), nil
		},
	}
}

func user(i int) string { return fmt.Sprint("user-", i) }
