//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

// Modes of a run that is about load.
const (
	soaking     = "soak"
	overloading = "overload"
)

// While capacity is measured publishers publish as fast as they can, but only
// while the stream of jobs has few: it does not grow, workers always have jobs,
// and what is accepted is what the whole can take.
const (
	flatOut        = 1000.0 // jobs a second of each publisher
	fewJobs        = 300    // enough for all slots of all workers
	manyOnTheirWay = 4096   // jobs that a publisher waits for, or publishes again later
	settling       = 10 * time.Second
	measuring      = 25 * time.Second
)

// topology bounds the events: a stream's max_bytes is reserved of what the
// smallest server may store.
const topology = "topology: {replicas: 3, events_max_bytes: 33554432}\n"

// A load is what a run under load measured and how it was judged.
type load struct {
	Capacity  float64       `json:"capacity"` // jobs a second
	Rate      float64       `json:"rate"`     // jobs a second that were then published, if they could be
	For       time.Duration `json:"for_ns"`
	Left      uint64        `json:"left"`          // jobs that waited after an overload
	WorkedOff time.Duration `json:"worked_off_ns"` // until none of them did
	Phases    []phase       `json:"phases"`
	Latencies []latency     `json:"latencies"`
	Checks    []verdict     `json:"checks"`
	Samples   []sample      `json:"samples"`
}

// A phase is a time in which the load was one.
type phase struct {
	Name string    `json:"name"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	Busy float64   `json:"busy"` // cores of the machine
}

func (p phase) has(t time.Time) bool { return !t.Before(p.From) && !t.After(p.To) }

// A verdict is one thing that was checked.
type verdict struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Saw  string `json:"saw"`
}

func (v verdict) String() string {
	if v.OK {
		return "PASS " + v.What + ": " + v.Saw
	}
	return "FAIL " + v.What + ": " + v.Saw
}

// mode sets the mode of the run; there is but one.
func (p *plan) mode(m string) error {
	if p.Mode != "" && p.Mode != m {
		return errors.New("either soak or overload")
	}
	p.Mode = m
	return nil
}

// defaults sets what the flags left open.
func (s *series) defaults() {
	if s.plan.For == 0 {
		s.plan.For = map[string]time.Duration{soaking: 15 * time.Minute, overloading: 2 * time.Minute, "": time.Minute}[s.plan.Mode]
	}
	if s.drain == 0 {
		// A job that ends each worker which calls for it comes back after AckWait, three
		// times, and the third is spent.
		const deadly = 3*mulligan.AckWait + 30*time.Second
		s.drain = map[string]time.Duration{soaking: 4 * time.Minute, "": deadly,
			overloading: 4*time.Minute + 6*s.plan.For, // a backlog has to be worked off before anything is late
		}[s.plan.Mode]
	}
}

// capacity measures how many jobs a second the whole takes.
func (r *rig) capacity(ctx context.Context, rep *report) error {
	r.say("measure for %v what it can take", measuring)
	go r.watch(ctx)
	wait(ctx, settling)
	before, err := r.jobs(ctx)
	if err != nil {
		return err
	}
	p := r.during("at capacity", func() { wait(ctx, measuring) })
	after, err := r.jobs(ctx)
	if err != nil {
		return err
	}
	accepted, err := r.accepted(p)
	if err != nil {
		return err
	}
	taken := float64(accepted) - (float64(after.Msgs) - float64(before.Msgs))
	rep.Load = &load{Capacity: taken / p.To.Sub(p.From).Seconds(), For: r.For, Phases: []phase{p}}
	r.say("capacity: %.0f jobs a second (%d accepted, %d waited before and %d after); %.1f cores of the machine were busy",
		rep.Load.Capacity, accepted, before.Msgs, after.Msgs, p.Busy)
	if rep.Load.Capacity < 1 {
		return errors.New("nothing was done while capacity was measured")
	}
	return nil
}

// pace has the publishers go on with a number of jobs a second together, however
// many there are.
func (r *rig) pace(rep *report, perSecond float64) error {
	rep.Load.Rate = perSecond
	r.say("publish %.0f jobs a second", perSecond)
	var errs []error
	for _, name := range publishers() {
		cfg := r.publisher(name)
		cfg.Rate, cfg.Below, cfg.Sheds = perSecond/float64(len(publishers())), 0, r.Mode == overloading
		p := r.processes[name]
		errs = append(errs, p.end(syscall.SIGTERM), writeJSON(r.roleFile(name), cfg), p.start())
	}
	return errors.Join(errs...)
}

// during is a phase of what do does.
func (r *rig) during(name string, do func()) phase {
	p := phase{Name: name, From: time.Now()}
	busy := busyCores()
	do()
	p.To = time.Now()
	p.Busy = (busyCores() - busy) / p.To.Sub(p.From).Seconds()
	return p
}

// busyCores is how many seconds the cores of the machine were busy since it began.
func busyCores() float64 {
	var user, nice, system, idle, wait, irq, soft float64
	b, err := os.ReadFile("/proc/stat")
	if err == nil {
		_, err = fmt.Sscanf(string(b), "cpu %f %f %f %f %f %f %f", &user, &nice, &system, &idle, &wait, &irq, &soft)
	}
	if err != nil {
		panic(err) // there is no Linux without it
	}
	return (user + nice + system + irq + soft) / 100
}

func (r *rig) jobs(ctx context.Context) (jetstream.StreamState, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := r.js.Stream(ctx, streams()[0])
	if err != nil {
		return jetstream.StreamState{}, err
	}
	return s.CachedInfo().State, nil
}

// accepted counts the jobs that were first accepted in a phase.
func (r *rig) accepted(in phase) (n int, err error) {
	for _, name := range publishers() {
		all, err := witness.Answers(r.logFile(name))
		if err != nil {
			return 0, err
		}
		seen := map[int]bool{}
		for _, a := range all {
			if a.Line.What == witness.Acked && !seen[a.Line.N] {
				seen[a.Line.N] = true
				if in.has(a.At) {
					n++
				}
			}
		}
	}
	return n, nil
}

// judge checks what the mode is about, and prints it.
func (r *rig) judge(ctx context.Context, rep *report) error {
	l := rep.Load
	r.sampleStreams(ctx)
	r.mu.Lock()
	l.Samples = slices.Clone(r.seen)
	r.mu.Unlock()
	var err error
	if l.Latencies, err = r.latencies(l); err != nil {
		return err
	}
	for _, a := range l.Latencies {
		_, _ = fmt.Fprintln(r.out, a)
	}
	if r.Mode == soaking {
		rows := soakRows(l, l.Phases[len(l.Phases)-1])
		printRows(r.out, rows)
		l.Checks = append(soaked(rows), empty(l)...)
	} else {
		l.Checks = overloaded(l)
	}
	for _, v := range l.Checks {
		_, _ = fmt.Fprintln(r.out, v)
		if !v.OK {
			rep.Violations = append(rep.Violations, v.What+": "+v.Saw)
		}
	}
	return nil
}
