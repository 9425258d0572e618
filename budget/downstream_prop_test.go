package budget

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A model drives a downstream at random and keeps its own account of it.
type model struct {
	d       *Downstream
	limits  Limits
	workers int
	now     time.Time
	tokens  []*Token // taken here, held or not
	flights []flight
	ended   []Permit

	// The account of the retries: what was spent and not given back, less what
	// successes and the floor have earned. Its lowest value so far is where the
	// worst window began.
	net, lowest float64
}

type flight struct {
	permit  Permit
	token   *Token
	foreign bool
}

func newModel(t *rapid.T) *model {
	m := &model{now: instant(0), workers: 1, limits: Limits{
		Ratio: rapid.SampledFrom([]float64{0.01, 0.1, 0.5, 1}).Draw(t, "ratio"),
		Cap:   rapid.SampledFrom([]float64{1, 2.5, 10}).Draw(t, "cap"),
		Floor: rapid.SampledFrom([]float64{0.01, 1, 20}).Draw(t, "floor"),
		Slots: rapid.SampledFrom([]int{1, 2, 5, 16}).Draw(t, "slots"),
	}}
	var err error
	if m.d, err = NewDownstream(m.limits, m.now); err != nil {
		t.Fatal(err)
	}
	return m
}

// spend notes retries spent, or with a negative n earned or given back.
func (m *model) spend(t *rapid.T, n float64) {
	m.net += n
	m.lowest = min(m.lowest, m.net)
	if spent := m.net - m.lowest; spent > m.limits.Cap+1e-6 {
		t.Fatalf("within some window %v more was spent than successes and floor earned, over the cap of %v", spent, m.limits.Cap)
	}
}

func (m *model) pass(t *rapid.T, by time.Duration) {
	m.now = m.now.Add(by)
	m.spend(t, -m.limits.Floor/float64(m.workers)*by.Seconds())
}

// anyOutcome is more often a failure or a success than not, so that breakers
// trip and close.
func anyOutcome(t *rapid.T) Outcome {
	o := Outcome{Result: rapid.OneOf(rapid.SampledFrom(results), rapid.SampledFrom([]Result{Succeeded, Failed})).Draw(t, "result"),
		User: rapid.SampledFrom([]string{"", "", "ada", "bob", "eve"}).Draw(t, "user")}
	if o.Result == Throttled {
		o.Hint = time.Duration(rapid.SampledFrom([]int{-1, 0, 0, 1, 5, 1000}).Draw(t, "hint")) * time.Second
	}
	return o
}

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"pass": func(t *rapid.T) {
			m.pass(t, time.Duration(rapid.SampledFrom([]int{1, 10, 300, 1000, 1001, 2000, 6000, 40_000}).Draw(t, "ms"))*time.Millisecond)
		},
		"take":       m.take,
		"back":       m.back,
		"cheapen":    m.cheapen,
		"start":      func(t *rapid.T) { m.start(t, nil, false) },
		"start many": m.startMany,
		"retry":      m.retry,
		"paid":       func(t *rapid.T) { m.start(t, m.d.Paid(rapid.SampledFrom(results).Draw(t, "after")), true) },
		"is a retry": m.isRetry,
		"is none":    m.isFirst,
		"end":        m.end,
		"end many":   m.endMany,
		"end again": func(t *rapid.T) {
			if len(m.ended) > 0 {
				m.unchanged(t, func() {
					permit := rapid.SampledFrom(m.ended).Draw(t, "permit")
					permit.End(m.now, anyOutcome(t))
					permit.Retry(m.now, Throttled)
					permit.First(m.now)
				})
			}
		},
		"share": func(t *rapid.T) {
			m.workers = rapid.IntRange(1, 5).Draw(t, "workers")
			m.d.Share(m.now, m.workers)
		},
		"": m.check,
	}
}

func (m *model) take(t *rapid.T) {
	after := rapid.SampledFrom(results).Draw(t, "after")
	before := m.snapshot()
	token, wait := m.d.Take(m.now, after)
	if token != nil {
		m.tokens = append(m.tokens, token)
		m.spend(t, costAfter(after))
		return
	}
	if after := m.snapshot(); !reflect.DeepEqual(before, after) {
		t.Fatalf("a denial changed\n%+v to\n%+v", before, after)
	}
	causes := map[Phase][]Cause{PhaseClosed: {NoToken}, PhaseHalfOpen: {NoToken, ProbeTaken}, PhaseOpen: {BreakerOpen, CredentialRefused}}
	if !slices.Contains(causes[m.d.breaker.phase], wait.Why) || !wait.Until.After(m.now) {
		t.Fatalf("a denial says %+v at %v", wait, m.now)
	}
}

func (m *model) back(t *rapid.T) {
	if len(m.tokens) == 0 {
		return
	}
	token := rapid.SampledFrom(m.tokens).Draw(t, "token")
	if token.state == tokenHeld {
		m.spend(t, -token.cost)
	}
	token.Back(m.now)
	m.unchanged(t, func() { token.Back(m.now) })
}

func (m *model) cheapen(t *rapid.T) {
	if len(m.tokens) == 0 {
		return
	}
	token := rapid.SampledFrom(m.tokens).Draw(t, "token")
	cost := token.cost
	token.After(m.now, Throttled)
	m.spend(t, token.cost-cost)
	m.unchanged(t, func() { token.After(m.now, Throttled) })
}

func (m *model) retry(t *rapid.T) {
	if len(m.tokens) > 0 {
		m.start(t, rapid.SampledFrom(m.tokens).Draw(t, "token"), false)
	}
}

func (m *model) startMany(t *rapid.T) {
	for range rapid.IntRange(2, 30).Draw(t, "n") {
		m.start(t, nil, false)
	}
}

func (m *model) start(t *rapid.T, token *Token, foreign bool) {
	held, before := m.d.Held(m.now), m.snapshot()
	usable := token == nil || token.state == tokenHeld
	permit, wait := m.d.Start(m.now, token)
	if wait.Why != "" {
		if after := m.snapshot(); !reflect.DeepEqual(before, after) {
			t.Fatalf("a denial for %q changed\n%+v to\n%+v", wait.Why, before, after)
		}
		if usable && wait.Why == TokenUsed || permit != (Permit{}) {
			t.Fatalf("a usable token is denied, or a denial has a permit: %+v, %+v", permit, wait)
		}
		timed := held
		if firsts := m.d.firstsOnly(); held.Why == "" && token != nil && usable {
			timed = firsts
		}
		if known := !wait.Until.IsZero(); known != (wait == timed && timed.Why != "") || known && !wait.Until.After(m.now) {
			t.Fatalf("held %+v, the start has to wait %+v, want %+v", held, wait, timed)
		}
		if wait.Why == LimitReached && before.Flow.current == 0 {
			t.Fatal("none that began since the last trip is in flight, and the limit denies a start")
		}
		return
	}
	if firsts := m.d.firstsOnly(); held.Why != "" || !usable || token != nil && firsts.Why != "" {
		t.Fatalf("started although held %+v, token usable = %v, %+v", held, usable, firsts)
	}
	if d := m.d; d.flow.current > d.limit() || d.flow.all > m.limits.Slots {
		t.Fatalf("%d are in flight of %d allowed, and %d of %d slots", d.flow.current, d.limit(), d.flow.all, m.limits.Slots)
	}
	m.flights = append(m.flights, flight{permit, token, foreign})
}

// isRetry has a call turn out to be a retry.
func (m *model) isRetry(t *rapid.T) {
	if len(m.flights) == 0 {
		return
	}
	f := &m.flights[rapid.IntRange(0, len(m.flights)-1).Draw(t, "flight")]
	after := rapid.SampledFrom(results).Draw(t, "after")
	if had := f.token; had != nil && !f.foreign {
		m.spend(t, min(costAfter(after)-had.cost, 0))
	}
	f.foreign = f.foreign || f.token == nil
	f.permit.Retry(m.now, after)
	f.token = m.d.calls[f.permit.place].token
}

// isFirst has a call turn out to be a first attempt.
func (m *model) isFirst(t *rapid.T) {
	if len(m.flights) == 0 {
		return
	}
	f := &m.flights[rapid.IntRange(0, len(m.flights)-1).Draw(t, "flight")]
	if f.token != nil && !f.foreign {
		m.spend(t, -f.token.cost)
	}
	f.permit.First(m.now)
	f.token, f.foreign = nil, false
}

func (m *model) end(t *rapid.T) {
	if len(m.flights) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.flights)-1).Draw(t, "flight")
	m.endOne(t, i, anyOutcome(t))
}

func (m *model) endMany(t *rapid.T) {
	o := anyOutcome(t)
	for len(m.flights) > 0 {
		m.endOne(t, len(m.flights)-1, o)
	}
}

func (m *model) endOne(t *rapid.T, i int, o Outcome) {
	f := m.flights[i]
	m.flights = slices.Delete(m.flights, i, i+1)
	m.ended = append(m.ended, f.permit)
	generation, phase := m.d.calls[f.permit.place].generation, m.d.breaker
	switch {
	case o.Result != Succeeded:
	case f.token != nil:
		m.spend(t, -f.token.cost)
	default:
		m.spend(t, -m.limits.Ratio)
	}
	f.permit.End(m.now, o)
	if after := m.d.breaker; generation != phase.generation && !reflect.DeepEqual(phase, after) {
		t.Fatalf("a late end changed the breaker from\n%+v to\n%+v", phase, after)
	}
}

// unchanged checks that what do does changes nothing.
func (m *model) unchanged(t *rapid.T, do func()) {
	before := m.snapshot()
	do()
	if after := m.snapshot(); !reflect.DeepEqual(before, after) {
		t.Fatalf("it changed\n%+v to\n%+v", before, after)
	}
}

// check is what is always true.
func (m *model) check(t *rapid.T) {
	s := m.d.State(m.now)
	switch {
	case s.Tokens < 0 || s.Tokens > m.limits.Cap || math.IsNaN(s.Tokens):
		t.Fatalf("%v retries are saved, of at most %v", s.Tokens, m.limits.Cap)
	case s.InFlight != len(m.flights):
		t.Fatalf("%d are said to be in flight, %d are", s.InFlight, len(m.flights))
	case s.Limit < 0 || s.Limit > m.limits.Slots:
		t.Fatalf("the limit is %d, with %d slots", s.Limit, m.limits.Slots)
	case (s.Limit == 0) != (m.d.breaker.phase == PhaseOpen):
		t.Fatalf("the limit is %d while %v", s.Limit, m.d.breaker.phase)
	}
	var sum bucket
	w := m.d.breaker.window
	for _, b := range w.buckets {
		sum.all.add(b.all)
		for p, u := range b.users {
			sum.users[p].add(u)
		}
	}
	if w.sum != sum {
		t.Fatalf("the window's sum is\n%v, of buckets that have\n%v", w.sum, sum)
	}
}

// snapshot is all that a downstream knows, at the model's time.
func (m *model) snapshot() memory {
	m.d.State(m.now) // lets time pass, so that what follows is the call's doing
	return memory{m.d.tokens, m.d.breaker, m.d.flow, fmt.Sprint(m.d.pushes, m.d.hints, m.d.gate, m.d.serial, m.d.calls, m.d.free)}
}

// memory is a copy of what a downstream knows.
type memory struct {
	Tokens  tokens
	Breaker breaker
	Flow    flow
	Rest    string
}

func TestWhateverHappensTheBudgetHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(m.actions())
	})
}

// Whatever one user's calls come to, while nobody else's fail, nothing is held
// and the limit is that of the slots.
func TestOneUserHoldsNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		var flights []Permit
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(t *rapid.T) { m.pass(t, time.Duration(rapid.IntRange(1, 20_000).Draw(t, "ms"))*time.Millisecond) },
			"start": func(t *rapid.T) {
				for range rapid.IntRange(1, 30).Draw(t, "n") {
					permit, wait := m.d.Start(m.now, nil)
					if wait.Why == "" {
						flights = append(flights, permit)
					} else if wait.Why != LimitReached || len(flights) < m.limits.Slots {
						t.Fatalf("with %d in flight a start has to wait %+v", len(flights), wait)
					}
				}
			},
			"end": func(t *rapid.T) {
				o := anyOutcome(t)
				if o.User != "eve" && o.Result != CallersFault && o.Result != Dropped {
					o.Result, o.Hint = Succeeded, 0
				}
				for range rapid.IntRange(0, len(flights)).Draw(t, "n") {
					flights[0].End(m.now, o)
					flights = flights[1:]
				}
			},
			"": func(t *rapid.T) {
				if s := m.d.State(m.now); s.Breaker != PhaseClosed || s.Limit != m.limits.Slots || !s.GateUntil.IsZero() {
					t.Fatalf("%+v", s)
				}
			},
		})
	})
}

// Whatever happened, and with calls that hang and end only much later, good
// outcomes bring every downstream back to closed, with all its slots.
func TestAfterQuietTimeEveryDownstreamIsClosed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(m.actions())
		for len(m.flights) > 0 && (len(m.flights) >= m.limits.Slots || rapid.Bool().Draw(t, "ends")) {
			m.end(t)
		}
		hanging := slices.Clone(m.flights)
		good := rapid.SampledFrom([]Result{Succeeded, CallersFault}).Draw(t, "good")
		m.pass(t, maxGate)
		m.recover(t, good)
		for _, f := range hanging { // their ends come late, if the breaker ever tripped since
			f.permit.End(m.now, Outcome{Result: rapid.SampledFrom([]Result{Dropped, good}).Draw(t, "late")})
		}
		if s := m.d.State(m.now); s.InFlight != 0 || s.Breaker != PhaseClosed || s.Limit != m.limits.Slots {
			t.Fatalf("after the late ends: %+v", s)
		}
	})
}

// recover makes good calls one after the other, as many as it takes at most.
func (m *model) recover(t *rapid.T, good Result) {
	for range probes + 2*m.limits.Slots*m.limits.Slots {
		permit, wait := m.d.Start(m.now, nil)
		if wait.Why == LimitReached { // as many hang as the limit allows
			if len(m.flights) == 0 {
				t.Fatalf("nothing hangs, and a start has to wait: %+v", wait)
			}
			m.endOne(t, 0, Outcome{Result: good})
			continue
		}
		if wait.Why == ProbeTaken { // by one that hangs
			m.endOne(t, len(m.flights)-1, Outcome{Result: good})
			continue
		}
		if wait.Why != "" {
			t.Fatalf("after quiet time a start has to wait: %+v", wait)
		}
		permit.End(m.now, Outcome{Result: good})
	}
	if s := m.d.State(m.now); s.Breaker != PhaseClosed || s.Limit != m.limits.Slots || !s.GateUntil.IsZero() {
		t.Fatalf("after quiet time and good calls: %+v", s)
	}
}
