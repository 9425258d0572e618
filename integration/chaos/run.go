//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

const (
	readyWait    = 90 * time.Second // for the cluster to take its first streams
	saidDir      = "said"           // what the roles wrote down
	evidenceFile = "evidence.json"
	reportFile   = "report.json"
)

// A task is one seed's run, as its sandbox is told.
type task struct {
	plan
	Drain    time.Duration // at most, until nothing is left to do
	Dir, Bin string        // of the evidence, and of the programs
}

// A report is what came of it.
type report struct {
	Seed       uint64                   `json:"seed"`
	Faults     []fault                  `json:"faults"`
	Skews      map[string]time.Duration `json:"skews"`
	Notes      []string                 `json:"notes"` // what went otherwise than drawn, with its time
	Violations []string                 `json:"violations"`
	Witness    witness.Report           `json:"witness"`
	Drained    time.Duration            `json:"drained"` // how long it took
	Dir        string                   `json:"dir"`
	Load       *load                    `json:"load,omitempty"` // of a run that is about load
}

// A rig is a run: the processes, what is done to them, and what was seen.
type rig struct {
	task
	cluster
	processes map[string]*process
	skews     map[string]time.Duration
	out       io.Writer

	mu     sync.Mutex
	began  time.Time
	notes  []string
	faults []witness.Fault
	seen   []sample // of a run that is about load
}

// run makes one seed's run, in its sandbox.
func run(ctx context.Context, t task) (report, error) {
	if err := furnish(ctx, t.Dir, t.Mode); err != nil {
		return report{}, err
	}
	r := &rig{task: t, processes: map[string]*process{}, skews: t.skews(), out: os.Stdout, began: time.Now()}
	if err := r.begin(ctx); err != nil {
		return report{}, fmt.Errorf("begin: %w", err)
	}
	defer r.close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	rep := report{Seed: t.Seed, Faults: draw(t.plan), Skews: r.skews, Dir: t.Dir}
	if err := r.trouble(ctx, &rep); err != nil {
		return rep, err
	}
	for _, name := range append(publishers(), operator) {
		rep.violated(r.processes[name].end(syscall.SIGTERM))
	}
	rep.violated(healed(ctx))
	healedAt := time.Now()
	drained := r.drain(ctx)
	rep.violated(drained)
	rep.Drained = time.Since(healedAt).Round(100 * time.Millisecond)
	for _, name := range slices.Concat(workers(), schedulers()) {
		// One that did not drain is made to write where its goroutines are.
		if ended := r.processes[name].end(syscall.SIGTERM); drained == nil {
			rep.violated(ended)
		}
	}
	err := r.check(ctx, &rep)
	if err == nil && t.Mode != "" {
		err = r.judge(ctx, &rep)
	}
	rep.Notes = r.notes
	rep.Violations = append(rep.Violations, panics(r.notes)...)
	return rep, err
}

// panics are the notes of processes that ended by a panic, or did not understand
// how they were called. One that gave up waiting for servers ended otherwise.
func panics(notes []string) (found []string) {
	for _, note := range notes {
		if strings.HasSuffix(note, endedByItself+"exit status 2") {
			found = append(found, note)
		}
	}
	return found
}

func (rep *report) violated(err error) {
	if err != nil {
		rep.Violations = append(rep.Violations, err.Error())
	}
}

// begin starts everything, and returns once jobs are being done.
func (r *rig) begin(ctx context.Context) error {
	if err := r.cast(); err != nil {
		return err
	}
	for _, name := range servers() {
		if err := r.processes[name].start(); err != nil {
			return err
		}
	}
	var err error
	if r.cluster, err = connect(); err != nil {
		return err
	}
	if err := r.provision(ctx); err != nil {
		return err
	}
	for _, name := range places() {
		if len(r.processes[name].args) == 0 {
			continue // nobody, in this run
		}
		if err := r.processes[name].start(); err != nil {
			return err
		}
	}
	return nil
}

// trouble is what the run is about: faults, under load or not, or load alone.
func (r *rig) trouble(ctx context.Context, rep *report) error {
	switch r.Mode {
	case soaking:
		return r.soak(ctx, rep)
	case overloading:
		return r.overload(ctx, rep)
	}
	r.wreck(ctx, rep.Faults)
	return nil
}

// provision asks for the streams until the cluster has a leader that makes them.
func (r *rig) provision(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	for {
		out, err := r.command(ctx, "provision", "--config", r.configFile(workers()[0], 1), "--server", serverURL())
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("provision: %w\n%s", err, out)
		}
		wait(ctx, 500*time.Millisecond)
	}
}

// wreck applies the faults, each at its time, and returns when the time is up
// and all are over.
func (r *rig) wreck(ctx context.Context, faults []fault) {
	r.mu.Lock()
	r.began = time.Now()
	r.mu.Unlock()
	for name, skew := range r.skews {
		r.faults = append(r.faults, witness.Fault{At: r.began, For: skew, What: "skew", Target: name})
	}
	var under sync.WaitGroup
	for _, f := range faults {
		under.Go(func() { r.suffer(ctx, f) })
	}
	wait(ctx, r.For)
	under.Wait()
}

func (r *rig) suffer(ctx context.Context, f fault) {
	wait(ctx, f.At)
	if ctx.Err() != nil {
		return
	}
	began := time.Now()
	r.say("%v %v", f, f.For)
	err := r.apply(ctx, f)
	took := time.Since(began)
	lasted := took
	if len(f.ways()) > 0 {
		lasted *= 2 // TCP, which waits twice as long each time, is heard again up to so much later
	}
	if err != nil {
		r.note("%s %s: %v", f.What, f.Target, err)
	}
	r.say("  over: %v after %v", f, took.Round(100*time.Millisecond))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, witness.Fault{At: began, For: lasted, What: f.What, Target: f.target()})
}

// drain waits until nothing is left to do.
func (r *rig) drain(ctx context.Context) error {
	deadline := time.Now().Add(r.Drain)
	left := "unknown"
	var err error
	for time.Now().Before(deadline) && ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		left, err = witness.Drained(asking, r.js)
		cancel()
		if err == nil && left == "" {
			return nil
		}
		wait(ctx, time.Second)
	}
	// Each writes where its goroutines are, and ends.
	for _, name := range slices.Concat(workers(), schedulers()) {
		r.processes[name].signal(syscall.SIGQUIT)
	}
	return errors.Join(fmt.Errorf("still left %v after everything was healed: %s", r.Drain, left), err)
}

// check gathers what there is and judges it.
func (r *rig) check(ctx context.Context, rep *report) error {
	ev, err := r.gather(ctx)
	if err != nil {
		return fmt.Errorf("gather the evidence: %w", err)
	}
	ev.Faults, ev.UserRate = r.faults, r.userRate()
	began := time.Now()
	rep.Witness = witness.Check(ev)
	r.say("judged %d keys in %v", rep.Witness.Tried, time.Since(began).Round(time.Millisecond))
	rep.Violations = append(rep.Violations, rep.Witness.Violations...)
	return writeJSON(filepath.Join(r.Dir, evidenceFile), ev)
}

// gather reads the evidence; the reader is a client like others, and may have to
// begin again.
func (r *rig) gather(ctx context.Context) (ev witness.Evidence, err error) {
	for range 5 {
		if ev, err = witness.Gather(ctx, r.js, filepath.Join(r.Dir, saidDir)); err == nil {
			return ev, nil
		}
		r.note("gather: %v", err)
		wait(ctx, 2*time.Second)
	}
	return ev, err
}

// say tells what happens, by the time since the faults began.
func (r *rig) say(format string, args ...any) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("%6.1fs  %s", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
	_, _ = fmt.Fprintln(r.out, line)
	return line
}

// note is say for what is worth a look afterwards.
func (r *rig) note(format string, args ...any) {
	line := r.say(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, strings.TrimSpace(line))
}

// conduct is what the sandbox does: the run that a file describes, and a file
// of what came of it.
func conduct(ctx context.Context, file string) error {
	var t task
	if err := readJSON(file, &t); err != nil {
		return err
	}
	rep, err := run(ctx, t)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(t.Dir, reportFile), rep)
}

func readJSON(file string, v any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
