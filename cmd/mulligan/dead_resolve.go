package main

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// resolveFlags are the word of a person about a dead job.
type resolveFlags struct {
	done, notDone            bool
	step, result, resultFile string

	bytes []byte // of the result
}

// resolvedView is what became of a letter that a person resolved.
type resolvedView struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	// Done: its effect happened, by that person's word or by a result recorded
	// before. Else the job is queued again, at Seq, as after the word about a step.
	Done bool   `json:"done"`
	Seq  uint64 `json:"seq,omitempty"`
}

func (p *program) deadResolveCommand() *cobra.Command {
	var f resolveFlags
	c := p.oneLetter("resolve KIND ID --done|--not-done", "Say whether the effect of a dead job happened: record it as done, or run it again",
		func(ctx context.Context, s *scheduler.Scheduler, kind, id string) error {
			return p.deadResolve(ctx, s, &f, kind, id)
		})
	c.Long = "Say whether the effect of a dead job happened, after having looked where it would show.\n\n" +
		"With --done the key is done, with the result if one is given, and never runs again.\n" +
		"With --not-done the job is published again, whatever a replay would say.\n" +
		"With --step NAME --done only that step is done, and the job is published again for what follows it."
	flags := c.Flags()
	flags.BoolVar(&f.done, "done", false, "its effect happened")
	flags.BoolVar(&f.notDone, "not-done", false, "its effect did not happen")
	flags.StringVar(&f.step, "step", "", "with --done, the step that began and whose effect happened")
	flags.StringVar(&f.result, "result", "", "with --done, the result to record")
	flags.StringVar(&f.resultFile, "result-file", "", "with --done, the file that has the result; - is standard input")
	c.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(flags.Changed); err != nil {
			return err
		}
		if err := p.readResult(&f, flags.Changed("result-file")); err != nil {
			return err
		}
		if f.step != "" && len(f.bytes) > 0 && !json.Valid(f.bytes) {
			return usage("the result of a step is JSON; %.40q is not", f.bytes)
		}
		return nil
	}
	return c
}

// check refuses what contradicts itself.
func (f *resolveFlags) check(given func(flag string) bool) error {
	switch {
	case f.done == f.notDone:
		return usage("say one of --done and --not-done: whether the effect of the job happened")
	case f.notDone && given("step"):
		return usage("a step belongs to --done; with --not-done those that are done are not repeated anyway")
	case f.notDone && (given("result") || given("result-file")):
		return usage("a result belongs to --done")
	case given("result") && given("result-file"):
		return usage("say one of --result and --result-file")
	case given("step") && f.step == "":
		return usage("--step has no name")
	}
	return nil
}

// readResult reads what is to be recorded, and a little more than may be.
func (p *program) readResult(f *resolveFlags, fromFile bool) error {
	if f.bytes = []byte(f.result); !fromFile {
		return nil
	}
	in := p.in
	if f.resultFile != "-" {
		file, err := os.Open(f.resultFile)
		if err != nil {
			return usage("--result-file: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	b, err := io.ReadAll(io.LimitReader(in, mulligan.DefaultMaxResult+1))
	if err != nil {
		return usage("--result-file: %w", err)
	}
	if len(b) > mulligan.DefaultMaxResult {
		return usage("--result-file: more than %d bytes are not kept", mulligan.DefaultMaxResult)
	}
	f.bytes = b
	return nil
}

func (p *program) deadResolve(ctx context.Context, s *scheduler.Scheduler, f *resolveFlags, kind, id string) error {
	v := resolvedView{Kind: kind, ID: id, Done: true}
	var back scheduler.Replayed
	var err error
	said := f.done && f.step == ""
	switch {
	case said:
		err = s.ResolveDone(ctx, kind, id, f.bytes)
	case f.done:
		back, err = s.ResolveStepDone(ctx, kind, id, scheduler.StepDone{Name: f.step, Result: f.bytes})
	default:
		back, err = s.ResolveNotDone(ctx, kind, id)
	}
	if err != nil {
		return deadHelp(err, kind, id)
	}
	if !said {
		v.Done, v.Seq = back.Done, back.Seq
	}
	switch {
	case p.asJSON:
		return p.printJSON(v)
	case said:
		p.printf("%s %s is done, and the letter is gone\n", kind, printable(id))
	case v.Done:
		p.printf("%s %s was done already: its result stands, and the letter is gone\n", kind, printable(id))
	default:
		p.printf("%s %s is queued again, see %s\n", kind, printable(id), hint(kind, id, "job"))
	}
	return nil
}
