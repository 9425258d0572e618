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
	Built      string                   `json:"built,omitempty"` // how the product was, besides
	Load       *load                    `json:"load,omitempty"`  // of a run that is about load
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
	broken []string // what must not be, but for what the checker finds
	faults []witness.Fault
	seen   []sample // of a run that is about load
	odd    []string // what was accepted and is no job
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
	if r.raced() {
		rep.Built = raceSuffix
	}
	if err := r.live(ctx, &rep); err != nil {
		return rep, err
	}
	err := r.check(ctx, &rep)
	if err == nil && t.Mode != "" {
		err = r.judge(ctx, &rep)
	}
	rep.Violations = append(r.broken, rep.Violations...)
	rep.Notes = r.notes
	return rep, err
}

// live is the run itself: trouble, healing, and the end of all jobs.
func (r *rig) live(ctx context.Context, rep *report) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	jobs, done := context.WithCancel(ctx)
	defer done()
	beside.Go(func() { r.broke(r.obey(jobs)) })
	if r.Mode == "" { // else it is to be busy
		beside.Go(func() { r.broke(r.attend(jobs)) })
	}
	if err := r.trouble(ctx, rep); err != nil {
		return err
	}
	r.broke(r.healed(ctx, rep))
	if r.Mode != overloading { // its publishers have ended
		r.broke(r.allCall(ctx, time.Now(), aliveWait))
	}
	for _, name := range append(publishers(), operator) {
		r.broke(r.processes[name].end(syscall.SIGTERM))
	}
	rep.Drained = r.finish(ctx)
	return nil
}

// finish waits until all jobs have ended, ends the product, and returns how long
// the jobs took.
func (r *rig) finish(ctx context.Context) time.Duration {
	began := time.Now()
	drained := r.drain(ctx)
	took := time.Since(began).Round(100 * time.Millisecond)
	r.broke(drained)
	for _, name := range ours() {
		// One that did not drain was made to write where its goroutines are.
		if ended := r.processes[name].end(syscall.SIGTERM); drained == nil {
			r.broke(ended)
			r.faultless(name)
		}
	}
	return took
}

// faultless looks for mistakes of the program in what a process said.
func (r *rig) faultless(name string) {
	lines, err := r.processes[name].faulty()
	r.broke(err)
	for _, line := range lines[:min(len(lines), 3)] {
		r.broke(errors.New(line))
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
	// A call that is refused because it does not listen yet is nobody's fault.
	if err := errors.Join(r.processes[downstream].start(), served(ctx)); err != nil {
		return err
	}
	for _, name := range everyone() {
		if err := r.processes[name].start(); err != nil {
			return err
		}
	}
	return r.allCall(ctx, r.began, readyWait)
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
	for name, skew := range r.skews {
		r.faults = append(r.faults, witness.Fault{At: r.began, For: skew, What: "skew", Target: name})
	}
	r.mu.Unlock()
	var under, odd sync.WaitGroup
	publishing, stop := context.WithCancel(ctx)
	odd.Go(func() { r.odd = r.publishOdd(publishing) })
	for i := range faults {
		under.Go(func() { r.suffer(ctx, &faults[i]) })
	}
	wait(ctx, r.For)
	under.Wait()
	stop()
	odd.Wait()
}

// suffer has a fault happen at its time, and notes what came of it.
func (r *rig) suffer(ctx context.Context, f *fault) {
	wait(ctx, f.At)
	if ctx.Err() != nil {
		return
	}
	f.began = time.Now()
	r.say("%v %v", f, f.For)
	err := r.apply(ctx, *f)
	f.Lasted = time.Since(f.began)
	if err != nil {
		r.note("%s %s: %v", f.What, f.Target, err)
	}
	r.say("  over: %v after %v", f, f.Lasted.Round(100*time.Millisecond))
	if f.Applied = !errors.Is(err, errNotApplied); !f.Applied {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, witness.Fault{At: f.began, For: f.Lasted, What: f.What, Target: f.target()})
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
	for _, name := range ours() {
		_ = r.processes[name].end(syscall.SIGQUIT) // which is no clean end
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
	r.oddEnd(&ev)
	inFlight(rep.Faults, ev)
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

// broke says what must not be. It is safe for concurrent use.
func (r *rig) broke(err error) {
	if err == nil {
		return
	}
	r.say("BROKEN %v", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, err.Error())
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
