//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

// overloadTimes is how much more than its capacity the whole is given.
const overloadTimes = 3

// Bounds of an overload. A publish over HTTP waits half a second at most for a place to
// ask the servers, before it is turned away; one that has a place, and one over the
// library, gets an answer within two. The slowest of all may have met
// a change of leaders, and a publisher gives up after five seconds.
const (
	publishP99 = 2 * time.Second
	publishMax = 5*time.Second + 500*time.Millisecond
	// A process of ours has in hand what its slots will start within a quarter of a
	// second, and the payloads of requests, 128 MiB at most; a server has blocks of
	// messages and an index of keys, and is told how much of a heap that may be.
	oursMost   = 512 << 20
	serverMost = 1 << 30
)

// overload publishes more than can be done, for a time.
func (r *rig) overload(ctx context.Context, rep *report) error {
	if err := r.capacity(ctx, rep); err != nil {
		return err
	}
	if err := r.bound(ctx, rep.Load.Capacity); err != nil {
		return err
	}
	if err := r.pace(rep, overloadTimes*rep.Load.Capacity); err != nil {
		return err
	}
	p := r.during("overloaded", func() { wait(ctx, r.For) })
	rep.Load.Phases = append(rep.Load.Phases, p)
	left, err := r.jobs(ctx)
	if err != nil {
		return err
	}
	rep.Load.Left = left.Msgs
	r.say("overloaded for %v, %d wait; %.1f cores of the machine were busy", r.For, left.Msgs, p.Busy)
	if err := r.workOff(ctx, rep); err != nil {
		return err
	}
	accepted, err := r.accepted(p)
	r.say("%.0f jobs a second were accepted meanwhile", float64(accepted)/r.For.Seconds())
	return err
}

// bound gives the stream of jobs room for what is done in half the time of the
// overload. Three times the capacity leaves twice the overload's work behind, which
// would take twice as long: who wants to be back in time has to turn jobs away.
func (r *rig) bound(ctx context.Context, capacity float64) error {
	jobs, err := r.jobs(ctx)
	if err != nil {
		return err
	}
	const unknown = 4 << 10 // bytes of a job, if none is there to be measured
	size := float64(unknown)
	if jobs.Msgs > 0 {
		size = float64(jobs.Bytes) / float64(jobs.Msgs)
	}
	most := int64(capacity * r.For.Seconds() / 2 * size)
	file := filepath.Join(r.Dir, "bounded.yaml")
	text := strings.Replace(topology, "}", fmt.Sprintf(", jobs_max_bytes: %d}", most), 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if out, err := r.command(ctx, "provision", "--config", file, "--server", serverURL()); err != nil {
		return fmt.Errorf("bound the stream of jobs: %w\n%s", err, out)
	}
	r.say("the stream of jobs takes %d MiB from now on, of %.0f bytes a job", most>>20, size)
	return nil
}

// workOff stops the publishers and waits until no job waits to be tried.
func (r *rig) workOff(ctx context.Context, rep *report) error {
	began := time.Now()
	for _, name := range publishers() {
		r.broke(r.processes[name].end(syscall.SIGTERM))
	}
	for time.Since(began) < r.Drain && ctx.Err() == nil {
		left, err := r.jobs(ctx)
		if err != nil {
			return err
		}
		if left.Msgs == 0 {
			break
		}
		wait(ctx, 250*time.Millisecond)
	}
	rep.Load.WorkedOff = time.Since(began).Round(100 * time.Millisecond)
	return nil
}

// latency is how long answers took to publishers of one sort in a phase.
type latency struct {
	Of       string         `json:"of"`
	Phase    string         `json:"phase"`
	P50      time.Duration  `json:"p50_ns"`
	P99      time.Duration  `json:"p99_ns"`
	Max      time.Duration  `json:"max_ns"`
	Answers  int            `json:"answers"`
	Accepted float64        `json:"accepted"` // a second
	Words    map[string]int `json:"words"`    // what the answers were
	Wrong    map[string]int `json:"wrong"`    // those that must not be
}

// latencies reads what publishers wrote down about each phase.
func (r *rig) latencies(l *load) (all []latency, err error) {
	answers := map[string][]witness.Said[witness.Published]{}
	for _, name := range publishers() {
		said, err := witness.Answers(r.logFile(name))
		if err != nil {
			return nil, err
		}
		for _, a := range said {
			of := "library"
			if a.Line.Status != 0 {
				of = "HTTP API"
			}
			if a.Line.Took > 0 {
				answers[of] = append(answers[of], a)
			}
		}
	}
	for _, p := range l.Phases {
		for _, of := range slices.Sorted(maps.Keys(answers)) {
			all = append(all, latencyOf(answers[of], of, p))
		}
	}
	return all, nil
}

func latencyOf(answers []witness.Said[witness.Published], of string, in phase) latency {
	l := latency{Of: of, Phase: in.Name, Words: map[string]int{}, Wrong: map[string]int{}}
	var took []time.Duration
	for _, a := range answers {
		if !in.has(a.At) {
			continue
		}
		took = append(took, a.Line.Took)
		word := a.Line.What
		if a.Line.Status != 0 {
			word = fmt.Sprint(a.Line.Status)
		}
		l.Words[word]++
		if a.Line.What == witness.Acked {
			l.Accepted += 1 / in.To.Sub(in.From).Seconds()
		}
		if why := a.Line.Refusal(a.At); why != "" {
			l.Wrong[why]++
		}
	}
	if l.Answers = len(took); l.Answers == 0 {
		return l
	}
	slices.Sort(took)
	l.P50, l.P99, l.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return l
}

func (l latency) String() string {
	return fmt.Sprintf("%s, %s: %d answers (%s), %.0f a second accepted, p50 %v, p99 %v, at most %v",
		l.Phase, l.Of, l.Answers, counts(l.Words), l.Accepted, l.P50.Round(time.Millisecond), l.P99.Round(time.Millisecond), l.Max.Round(time.Millisecond))
}

// overloaded judges an overload by what was measured.
func overloaded(l *load) (checks []verdict) {
	for _, a := range l.Latencies {
		if a.Phase != "overloaded" {
			continue
		}
		checks = append(checks,
			verdict{fmt.Sprintf("%s: p99 within %v, all within %v", a.Of, publishP99, publishMax), a.Answers > 0 && a.P99 <= publishP99 && a.Max <= publishMax,
				fmt.Sprintf("p50 %v, p99 %v, at most %v", a.P50.Round(time.Millisecond), a.P99.Round(time.Millisecond), a.Max.Round(time.Millisecond))},
			verdict{a.Of + ": who is turned away is told when to come back", a.Answers > 0 && len(a.Wrong) == 0, fmt.Sprintf("%s, wrong %s", counts(a.Words), counts(a.Wrong))})
	}
	if len(checks) < 4 {
		checks = append(checks, verdict{"answers of both ways to publish", false, "none of one"})
	}
	checks = append(checks, peaks(l.Samples)...)
	backlog := time.Duration(float64(l.Left) / l.Capacity * float64(time.Second))
	return append(checks,
		verdict{"it was overloaded", float64(l.Left) > l.Capacity, fmt.Sprintf("%d jobs waited at its end: %v at capacity", l.Left, backlog.Round(time.Second))},
		verdict{"the backlog is worked off in less time than the overload lasted", l.WorkedOff < l.For, l.WorkedOff.String()})
}

// peaks judges the most memory that each process had.
func peaks(all []sample) (checks []verdict) {
	for _, group := range []struct {
		what  string
		names []string
		most  float64
	}{
		{"servers", servers(), serverMost},
		{"workers, schedulers and the HTTP API", ours(), oursMost},
	} {
		v := verdict{What: fmt.Sprintf("memory of %s stays below %s", group.what, figure(peak, group.most)), OK: true}
		for _, name := range group.names {
			had := 0.0
			for _, s := range all {
				if s.Of == name && s.What == peak {
					had = max(had, s.Value)
				}
			}
			v.OK = v.OK && had > 0 && had < group.most
			v.Saw += fmt.Sprintf("%s %s, ", name, figure(peak, had))
		}
		v.Saw = strings.TrimSuffix(v.Saw, ", ")
		checks = append(checks, v)
	}
	return checks
}
