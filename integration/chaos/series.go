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
	"sync"
	"time"
)

// A series is several runs, one a seed.
type series struct {
	seeds, parallel int
	plan            plan // of the first seed
	drain           time.Duration
	dir, bin        string
	ours            bool // dir is, to remove
	asJSON          bool

	mu      sync.Mutex
	reports []report
}

var errViolated = errors.New("something was violated")

// run runs all seeds, so many at once, and prints what came of them.
func (s *series) run(ctx context.Context) error {
	next := make(chan plan)
	var runners sync.WaitGroup
	var failed failures
	for range min(s.parallel, s.seeds) {
		runners.Go(func() {
			for p := range next {
				rep, err := s.one(ctx, p)
				failed.add(err)
				if err == nil {
					s.ended(rep)
				}
			}
		})
	}
	for i := range s.seeds {
		select {
		case next <- s.seed(i):
		case <-ctx.Done():
		}
	}
	close(next)
	runners.Wait()
	if s.seeds > 1 && !s.asJSON {
		s.print(os.Stdout)
	}
	bad := slices.ContainsFunc(s.reports, func(r report) bool { return len(r.Violations) > 0 })
	if err := errors.Join(failed.all...); err != nil {
		return fmt.Errorf("%w\nthe evidence is in %s", err, s.dir)
	}
	if bad {
		return errViolated
	}
	if s.ours {
		return os.RemoveAll(s.dir)
	}
	return nil
}

// seed is the plan of one of the runs.
func (s *series) seed(i int) plan {
	p := s.plan
	p.Seed += uint64(i)
	return p
}

// raced reports whether a run needs the race detector.
func (s *series) raced() bool {
	for i := range s.seeds {
		if s.seed(i).raced() {
			return true
		}
	}
	return false
}

// failures are runs that did not come to their end.
type failures struct {
	mu  sync.Mutex
	all []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.all = append(f.all, err)
	}
}

// one runs one seed in a sandbox of its own.
func (s *series) one(ctx context.Context, p plan) (report, error) {
	t := task{plan: p, Drain: s.drain, Dir: filepath.Join(s.dir, fmt.Sprint("seed-", p.Seed)), Bin: s.bin}
	if err := os.Mkdir(t.Dir, 0o755); err != nil { // not into what an earlier run left
		return report{}, err
	}
	file := filepath.Join(t.Dir, "task.json")
	if err := writeJSON(file, t); err != nil {
		return report{}, err
	}
	log, err := os.Create(filepath.Join(t.Dir, "faults.log"))
	if err != nil {
		return report{}, err
	}
	defer func() { _ = log.Close() }() // what matters is in the report too
	cmd := sandboxed(ctx, conducting, "-config", file)
	cmd.Stdout, cmd.Stderr = log, log
	if s.seeds == 1 && !s.asJSON {
		fmt.Printf("seed %d\n", p.Seed)
		cmd.Stdout = io.MultiWriter(os.Stdout, log)
		cmd.Stderr = io.MultiWriter(os.Stderr, log)
	}
	if err := cmd.Start(); err != nil {
		return report{}, refused(err)
	}
	if err := cmd.Wait(); err != nil {
		return report{}, fmt.Errorf("seed %d: %w: see %s", p.Seed, err, log.Name())
	}
	var rep report
	return rep, readJSON(filepath.Join(t.Dir, reportFile), &rep)
}

// ended prints a run, and removes what nobody needs of a good one.
func (s *series) ended(rep report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, rep)
	if len(rep.Violations) == 0 && s.ours {
		_ = os.RemoveAll(rep.Dir) // the whole directory goes at the end
	}
	if s.asJSON {
		b, err := json.Marshal(rep)
		if err != nil {
			panic(err) // it came from JSON
		}
		fmt.Println(string(b))
		return
	}
	fmt.Println(rep.line())
	for _, v := range rep.Violations {
		fmt.Println("    VIOLATED", v)
	}
	if len(rep.Violations) > 0 {
		fmt.Printf("    the evidence is in %s; repeat its faults with -seed %d -for %v\n", rep.Dir, rep.Seed, s.plan.For)
	}
}
