//go:build linux

// Command chaos runs the whole of Mulligan as processes on a cluster of three
// servers, wrecks it by a seed, lets it heal, and checks what must never be
// otherwise. See the README beside it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, errViolated) {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
		os.Exit(1)
	}
}

// conducting is the command of a sandbox, which is for this program to call.
const conducting = "conduct"

// command is the program, or one of its roles.
func command(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0][0] == '-' {
		return many(ctx, args)
	}
	f := flag.NewFlagSet(args[0], flag.ExitOnError)
	file := f.String("config", "", "what to do, as JSON")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case conducting:
		return conduct(ctx, *file)
	case "publisher":
		return role(ctx, *file, witness.Publisher)
	case downstream:
		return role(ctx, *file, witness.Downstream)
	case operator:
		return role(ctx, *file, witness.Operator)
	case "check": // again, of the evidence of a run
		return role(ctx, *file, check)
	}
	return fmt.Errorf("there is no role %q", args[0])
}

// role runs a role by its configuration file.
func role[C any](ctx context.Context, file string, run func(context.Context, C) error) error {
	var cfg C
	if err := readJSON(file, &cfg); err != nil {
		return err
	}
	return run(ctx, cfg)
}

func check(_ context.Context, ev witness.Evidence) error {
	r := witness.Check(ev)
	fmt.Print(r)
	if len(r.Violations) > 0 {
		return errViolated
	}
	return nil
}

// many runs the seeds that the flags name.
func many(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("chaos", flag.ExitOnError)
	var s series
	f.Uint64Var(&s.plan.Seed, "seed", uint64(time.Now().UnixNano()%1_000_000), "what is drawn; one that is named repeats a run's faults")
	f.IntVar(&s.seeds, "seeds", 1, "how many runs, of this seed and those that follow it")
	f.IntVar(&s.parallel, "parallel", 1, "how many of them at once")
	f.DurationVar(&s.plan.For, "for", 0, "how long things go wrong in each (default 1m; 15m to soak, 2m to overload)")
	f.DurationVar(&s.drain, "drain", 0, "how long the jobs may then take to end (default 2m; 4m to soak, and six times -for besides to overload)")
	f.BoolFunc("soak", "under load, and look for what grows", func(string) error { return s.plan.mode(soaking) })
	f.BoolFunc("overload", "with three times the load that it can take, and no faults", func(string) error { return s.plan.mode(overloading) })
	f.Func("only", "kinds of faults, with commas between (default all)", func(list string) error {
		s.plan.Only = strings.Split(list, ",")
		return s.plan.check()
	})
	f.StringVar(&s.dir, "dir", "", "where to keep the evidence (default a new directory, that of a good run is removed)")
	f.BoolVar(&s.asJSON, "json", false, "print JSON: one report a run")
	if err := f.Parse(args); err != nil {
		return err
	}
	s.defaults()
	if f.NArg() > 0 || s.seeds < 1 || s.parallel < 1 || s.plan.For < 10*time.Second {
		return errors.New("-seeds and -parallel are 1 or more, -for is 10s or more, and there are no arguments")
	}
	if err := tools(); err != nil {
		return err
	}
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "mulligan-chaos-")
		if err != nil {
			return err
		}
		s.dir, s.ours = dir, true
	}
	s.bin = filepath.Join(s.dir, "bin")
	if err := os.MkdirAll(s.bin, 0o755); err != nil {
		return err
	}
	if err := build(ctx, s.bin, s.raced()); err != nil {
		return err
	}
	return s.run(ctx)
}
