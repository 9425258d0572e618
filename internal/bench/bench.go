// Package bench measures what a user of Mulligan gets, beside the same work done by
// a loop of nats.go and nothing else. Both do it in turn, in one run, against one
// server in a process of its own, so that what is quoted are ratios: they say more
// than figures of a machine that nobody else has.
//
// Reading order: Run, Case, the cases.
package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// A Case is some work that both sides do.
type Case struct {
	Name  string `json:"case"`
	About string `json:"about"`
	// Against is what Mulligan is compared with if that is not the bare loop.
	Against string `json:"against,omitempty"`
	// Sync is when the server flushes to disk if that is not the run's choice.
	Sync     string    `json:"sync,omitempty"`
	Measures []Measure `json:"measures"`

	bare, ours side
	rounds     int // at most; zero is as many as are asked for
	// setup, if there is one, prepares what all rounds need; stop takes it away.
	setup func(ctx context.Context) (stop func(), err error)
}

// side does the work once and returns its measures, in their order.
type side func(ctx context.Context, f *field) ([]float64, error)

// A Measure is something that a case measures on both sides.
type Measure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Goal bounds Mulligan's figure divided by the bare one; zero is none. AtMost says
	// that it must not be over it, not under it.
	Goal   float64 `json:"goal,omitempty"`
	AtMost bool    `json:"at_most,omitempty"`
	// Alone and Over say that it bounds Mulligan's figure alone, or less the bare one.
	Alone bool `json:"alone,omitempty"`
	Over  bool `json:"over,omitempty"`
}

// A Figure is what came of a measure: the medians of all rounds.
type Figure struct {
	Measure
	Bare float64 `json:"bare"`
	Ours float64 `json:"mulligan"`
	// Ratio is the median of each round's, not that of the medians; zero of a measure
	// that is Alone or Over.
	Ratio float64 `json:"ratio,omitempty"`
	Least float64 `json:"ratio_least,omitempty"`
	Most  float64 `json:"ratio_most,omitempty"`
}

// Met reports whether the goal was met; it is if there is none.
func (f Figure) Met() bool {
	is := f.Ratio
	switch {
	case f.Alone:
		is = f.Ours
	case f.Over:
		is = f.Ours - f.Bare
	}
	return f.Goal == 0 || f.AtMost && is <= f.Goal || !f.AtMost && is >= f.Goal
}

// A Result is what came of a case.
type Result struct {
	Case    string        `json:"case"`
	About   string        `json:"about"`
	Against string        `json:"against,omitempty"`
	Rounds  int           `json:"rounds"`
	Took    time.Duration `json:"took_ns"`
	Figures []Figure      `json:"figures"`
}

// Run measures a case on a server that nobody else uses: both sides in turn, so
// many times, each going first every other time. said is told what goes on.
func Run(ctx context.Context, c Case, server *Server, rounds int, said func(string)) (Result, error) {
	began := time.Now()
	if c.rounds > 0 {
		rounds = min(rounds, c.rounds)
	}
	if c.setup != nil {
		said(c.Name + ": prepare")
		stop, err := c.setup(ctx)
		if err != nil {
			return Result{}, fmt.Errorf("%s: %w", c.Name, err)
		}
		defer stop()
	}
	var bare, ours [][]float64
	for round := range rounds {
		sides := []struct {
			name string
			does side
			to   *[][]float64
		}{{"bare", c.bare, &bare}, {"mulligan", c.ours, &ours}}
		if round%2 == 1 {
			slices.Reverse(sides)
		}
		for _, s := range sides {
			said(fmt.Sprintf("%s: round %d of %d, %s", c.Name, round+1, rounds, s.name))
			got, err := once(ctx, server, s.does)
			if err != nil {
				return Result{}, fmt.Errorf("%s, %s: %w", c.Name, s.name, err)
			}
			*s.to = append(*s.to, got)
		}
	}
	r := Result{Case: c.Name, About: c.About, Against: c.Against, Rounds: rounds, Took: time.Since(began).Round(time.Millisecond)}
	for i, m := range c.Measures {
		var b, o, ratios []float64
		for round := range rounds {
			b, o = append(b, bare[round][i]), append(o, ours[round][i])
			ratios = append(ratios, ours[round][i]/bare[round][i])
		}
		f := Figure{Measure: m, Bare: median(b), Ours: median(o)}
		if !m.Alone && !m.Over {
			f.Ratio, f.Least, f.Most = median(ratios), slices.Min(ratios), slices.Max(ratios)
		}
		r.Figures = append(r.Figures, f)
	}
	return r, nil
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// field is where one side works: empty streams and a connection of its own.
type field struct {
	server *Server
	conn   *nats.Conn
	js     jetstream.JetStream
	top    mulligan.Topology
	// Those who publish have a connection of their own.
	stores jetstream.JetStream
	pub    *mulligan.Publisher
}

func once(ctx context.Context, server *Server, does side) ([]float64, error) {
	f := &field{server: server, top: mulligan.Topology{}}
	var err error
	if f.conn, err = f.dial(); err != nil {
		return nil, err
	}
	defer f.conn.Close()
	if f.js, err = jetstream.New(f.conn); err != nil {
		return nil, err
	}
	publishing, err := f.dial() // a publisher has a connection of its own, on both sides
	if err != nil {
		return nil, err
	}
	defer publishing.Close()
	if f.stores, err = jetstream.New(publishing); err != nil {
		return nil, err
	}
	f.pub = &mulligan.Publisher{Conn: publishing, Kinds: kinds(), Topology: f.top}
	if err := f.clear(ctx); err != nil {
		return nil, err
	}
	return does(ctx, f)
}

// window is how many publishes wait for their answer at once, of both sides where
// many are published.
const window = 1024

func (f *field) dial() (*nats.Conn, error) {
	return nats.Connect(f.server.URL, nats.MaxReconnects(-1))
}

// clear makes the streams anew.
func (f *field) clear(ctx context.Context) error {
	for name := range f.streams(ctx) {
		if err := f.js.DeleteStream(ctx, name); err != nil {
			return fmt.Errorf("clear %s: %w", name, err)
		}
	}
	if err := f.top.Ensure(ctx, f.js); err != nil {
		return err
	}
	if _, err := f.top.Declare(ctx, f.js, kinds()); err != nil {
		return err
	}
	return f.top.EnsureConsumers(ctx, f.js, downstreams())
}

func (f *field) streams(ctx context.Context) map[string]bool {
	names := map[string]bool{}
	for name := range f.js.StreamNames(ctx).Name() {
		names[name] = true
	}
	return names
}

// Kinds that the cases publish.
const (
	pure   = "bench.pure"
	keyed  = "bench.keyed"
	unique = "bench.once"
)

func kinds() []mulligan.Kind {
	return []mulligan.Kind{
		{Name: pure, Effect: mulligan.Pure},
		{Name: keyed, Effect: mulligan.Keyed, Downstream: "keyed"},
		{Name: unique, Effect: mulligan.Once, Downstream: "once"},
	}
}

func downstreams() []string {
	var all []string
	for _, k := range kinds() {
		n, err := k.Normal()
		if err == nil && !slices.Contains(all, n.Downstream) {
			all = append(all, n.Downstream)
		}
	}
	return all
}

func kindNamed(name string) mulligan.Kind {
	i := slices.IndexFunc(kinds(), func(k mulligan.Kind) bool { return k.Name == name })
	return kinds()[i]
}

func downstreamOf(kind string) string {
	k, _ := kindNamed(kind).Normal() // cannot fail: it was declared
	return k.Downstream
}

// Cases are all of them, in the order of the table.
func Cases() []Case {
	return []Case{
		publishOne(1), publishOne(16), publishMany(), publishFile(), publishSynced(),
		consume(1, small), consume(16, small), consume(64, small), consume(1, large), consume(16, large), consume(64, large),
		latency(500), latency(2000), keyedJobs(), onceJobs(),
		retries(), late(), waiting(), due(),
		scale(2), scale(4), scale(8), targets(), recovery(),
	}
}
