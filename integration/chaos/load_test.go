//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

// steps is a series of so many points, each fifteenth of it with a value of its own.
func steps(n int, values ...float64) (points []float64) {
	for i := range n {
		points = append(points, values[i*len(values)/n])
	}
	return points
}

func TestASeriesLevelsOffOrGrows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		points []float64
		slack  float64
		want   string
	}{
		{"what stays is level", steps(60, 100), 0, "level"},
		{"what warms up and then stays is level", steps(60, 1, 50, 100, 100, 100, 100, 100, 100, 100), 0, "level"},
		{"what grows all the time grows", steps(60, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100), 0, "GROWS"},
		{"what grows by a little more than a fifth grows", steps(60, 100, 100, 100, 100, 121), 0, "GROWS"},
		{"what grows by a fifth is level", steps(60, 100, 100, 100, 100, 120), 0, "level"},
		{"a little that grows is within the slack", steps(60, 1, 1, 1, 1, 10), 9, "level"},
		{"a peak in between is no growth", steps(60, 10, 10, 10, 10, 10, 10, 900, 10, 10, 10), 0, "level"},
		{"a peak at the very end is no growth", append(steps(60, 10), 900, 900), 0, "level"},
		{"what shrinks is level", steps(60, 100, 10), 0, "level"},
		{"a short life tells nothing", steps(shortest-1, 1, 100), 0, "too short"},
		{"a life just long enough tells", steps(shortest, 1, 100), 0, "GROWS"},
		{"nothing tells nothing", nil, 0, "too short"},
	} {
		if got := (row{level: levelOf(c.points), slack: c.slack}).verdict(); got != c.want {
			t.Errorf("%s: %+v of %v is %s, want %s", c.name, levelOf(c.points), c.points, got, c.want)
		}
	}
}

// sampled is a run of ten minutes in which everything stays as it is, but for what
// spoil changes: each figure at a share of the run.
func sampled(spoil func(s *sample, share float64)) (*load, phase) {
	in := phase{Name: "soaked", From: time.Unix(1000, 0), To: time.Unix(1600, 0)}
	l := &load{Rate: 100}
	for at := in.From; !at.After(in.To); at = at.Add(sampleEvery) {
		see := func(of string, what string, value float64) {
			s := sample{At: at, Of: of, What: what, Value: value}
			spoil(&s, at.Sub(in.From).Seconds()/in.To.Sub(in.From).Seconds())
			l.Samples = append(l.Samples, s)
		}
		for _, name := range slices.Concat(servers(), ours()) {
			see(name, memory, 100<<20)
			see(name, handles, 30)
			see(name, goroutines, 200)
		}
		for _, name := range append(streams(), "MULLIGAN_EVENTS") {
			see(name, messages, 1000)
			see(name, held, 500_000)
		}
	}
	return l, in
}

func TestASoakFailsByWhatGrows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(s *sample, share float64)
		fails string // what the check is called; empty is none
	}{
		{"nothing grows", func(*sample, float64) {}, ""},
		{"a worker's memory grows", func(s *sample, share float64) {
			if s.Of == "worker2" && s.What == memory {
				s.Value *= 1 + 2*share
			}
		}, memory},
		{"a server's memory grows with its keys", func(s *sample, share float64) {
			switch {
			case s.Of == "nats1" && s.What == memory:
				s.Value += 100 << 20 * share
			case s.Of == "KV_mulligan_ledger":
				s.Value *= 1 + 200*share
			}
		}, ""},
		{"a server's memory grows, and not with its keys", func(s *sample, share float64) {
			if s.Of == "nats1" && s.What == memory {
				s.Value += 300 << 20 * share
			}
		}, memory},
		{"a scheduler's handles grow", func(s *sample, share float64) {
			if s.Of == "scheduler1" && s.What == handles {
				s.Value += 100 * share
			}
		}, handles},
		{"goroutines of the API grow", func(s *sample, share float64) {
			if s.Of == api && s.What == goroutines {
				s.Value += 500 * share
			}
		}, goroutines},
		{"the backlog grows", func(s *sample, share float64) {
			if s.Of == "MULLIGAN_RETRIES" && s.What == messages {
				s.Value += 6000 * share
			}
		}, messages},
		{"records grow", func(s *sample, share float64) {
			if s.Of == "KV_mulligan_ledger" && s.What == held {
				s.Value *= 1 + share
			}
		}, perKey},
		{"the processes of a role never live for long", func(s *sample, _ float64) {
			if strings.HasPrefix(s.Of, "scheduler") {
				s.Life = int(s.At.Unix()) / 40
			}
		}, memory},
	} {
		l, in := sampled(c.spoil)
		var failed []string
		for _, v := range soaked(soakRows(l, in)) {
			if !v.OK {
				failed = append(failed, v.String())
			}
		}
		if c.fails == "" && len(failed) > 0 || c.fails != "" && (len(failed) == 0 || !strings.HasPrefix(failed[0], "FAIL "+c.fails)) {
			t.Errorf("%s: failed %q, want what begins with %q", c.name, failed, c.fails)
		}
	}
}

func TestAProcessIsJudgedInItsLongestLife(t *testing.T) {
	t.Parallel()
	in := phase{From: time.Unix(0, 0), To: time.Unix(100, 0)}
	var all []sample
	for i := range 100 {
		life := 1
		if i >= 30 {
			life = 2
		}
		all = append(all, sample{At: time.Unix(int64(i), 0), Of: "worker1", What: memory, Life: life, Value: float64(life)})
	}
	if got := longest(all, "worker1", memory, in); len(got) != 70 || got[0] != 2 {
		t.Errorf("got %v, want the 70 points of life 2", got)
	}
}

func TestAnOverloadIsJudgedByAnswersMemoryAndBacklog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(l *load)
		fails string
	}{
		{"a good one", func(*load) {}, ""},
		{"slow answers", func(l *load) { l.Latencies[0].P99 = publishP99 + 1 }, "HTTP API: p99"},
		{"one answer that never comes", func(l *load) { l.Latencies[1].Max = time.Minute }, "library: p99"},
		{"a refusal without a time to come back", func(l *load) { l.Latencies[0].Wrong["503 without Retry-After"] = 1 }, "HTTP API: who is turned away"},
		{"nobody published over HTTP", func(l *load) { l.Latencies = l.Latencies[1:] }, "answers of both ways"},
		{"a server takes all memory", func(l *load) { l.Samples[0].Value = serverMost }, "memory of servers"},
		{"a worker that was not looked at", func(l *load) { l.Samples[3].Of = "somebody" }, "memory of workers"},
		{"a load that was none", func(l *load) { l.Left = 3 }, "it was overloaded"},
		{"a backlog that stays", func(l *load) { l.WorkedOff = l.For }, "the backlog"},
	} {
		l := &load{Capacity: 100, For: time.Minute, Left: 5000, WorkedOff: 50 * time.Second, Latencies: []latency{
			{Of: "HTTP API", Phase: "overloaded", Answers: 9, P99: time.Second, Max: time.Second, Wrong: map[string]int{}},
			{Of: "library", Phase: "overloaded", Answers: 9, P99: time.Second, Max: time.Second}}}
		for _, name := range slices.Concat(servers(), ours()) {
			l.Samples = append(l.Samples, sample{Of: name, What: peak, Value: 1 << 20})
		}
		c.spoil(l)
		var failed []string
		for _, v := range overloaded(l) {
			if !v.OK {
				failed = append(failed, v.What)
			}
		}
		if c.fails == "" && len(failed) > 0 || c.fails != "" && (len(failed) != 1 || !strings.HasPrefix(failed[0], c.fails)) {
			t.Errorf("%s: failed %q, want one that begins with %q", c.name, failed, c.fails)
		}
	}
}

func TestLatenciesAreThoseOfAPhase(t *testing.T) {
	t.Parallel()
	in := phase{Name: "overloaded", From: time.Unix(100, 0), To: time.Unix(200, 0)}
	var all []witness.Said[witness.Published]
	for i := range 300 {
		p := witness.Published{What: witness.Acked, Took: time.Duration(i) * time.Millisecond, Status: 202}
		switch i {
		case 150:
			p.What, p.Status = witness.Unsure, 503
		case 160:
			p.What, p.Status, p.RetryAfter = witness.Unsure, 503, "2"
		case 170:
			p.What, p.Status, p.Error = witness.Refused, 400, "no"
		case 180:
			p.What, p.Status, p.Error, p.Deadline = witness.Refused, 400, "late", time.Unix(179, 0)
		}
		all = append(all, witness.Said[witness.Published]{At: time.Unix(int64(i), 0), Line: p})
	}
	l := latencyOf(all, "HTTP API", in)
	if l.Answers != 101 || l.P50 != 150*time.Millisecond || l.P99 != 199*time.Millisecond || l.Max != 200*time.Millisecond ||
		l.Words["202"] != 97 || l.Words["503"] != 2 || len(l.Wrong) != 2 || l.Wrong["503 without Retry-After"] != 1 || l.Wrong["400: no"] != 1 {
		t.Errorf("got %+v", l)
	}
}

func TestASoakHasAFaultEveryTwentySeconds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		all := draw(plan{Seed: seed, For: 15 * time.Minute, Mode: soaking})
		if len(all) < 40 {
			t.Errorf("seed %d: %d faults in a quarter of an hour", seed, len(all))
		}
		for i, f := range all {
			if f.At != faultEvery*time.Duration(i+1) {
				t.Errorf("seed %d: fault %d is at %v", seed, i, f.At)
			}
		}
	}
}
