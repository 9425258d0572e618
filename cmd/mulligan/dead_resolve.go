package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// resolveFlags are the word of a person about a dead job.
type resolveFlags struct {
	done, notDone      bool
	result, resultFile string

	bytes []byte // of the result
}

// resolvedView is what became of a letter that a person resolved.
type resolvedView struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	// Done: its effect happened, by that person's word or by a result recorded
	// before. Else the job is queued again, at Seq.
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
		"With --not-done the job is published again, whatever a replay would say."
	flags := c.Flags()
	flags.BoolVar(&f.done, "done", false, "its effect happened")
	flags.BoolVar(&f.notDone, "not-done", false, "its effect did not happen")
	flags.StringVar(&f.result, "result", "", "with --done, the result to record")
	flags.StringVar(&f.resultFile, "result-file", "", "with --done, the file that has the result; - is standard input")
	c.PreRunE = func(cmd *cobra.Command, _ []string) error {
		given := flags.Changed("result") || flags.Changed("result-file")
		switch {
		case f.done == f.notDone:
			return usage("say one of --done and --not-done: whether the effect of the job happened")
		case given && f.notDone:
			return usage("a result belongs to --done")
		case flags.Changed("result") && flags.Changed("result-file"):
			return usage("say one of --result and --result-file")
		}
		return p.readResult(&f, flags.Changed("result-file"))
	}
	return c
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
	if f.done {
		if err := s.ResolveDone(ctx, kind, id, f.bytes); err != nil {
			return deadHelp(err, kind, id)
		}
	} else {
		r, err := s.ResolveNotDone(ctx, kind, id)
		if err != nil {
			return deadHelp(err, kind, id)
		}
		v.Done, v.Seq = r.Done, r.Seq
	}
	switch {
	case p.asJSON:
		return p.printJSON(v)
	case v.Done && !f.done:
		p.printf("%s %s was done already: its result stands, and the letter is gone\n", kind, printable(id))
	case v.Done:
		p.printf("%s %s is done, and the letter is gone\n", kind, printable(id))
	default:
		p.printf("%s %s is queued again, see %s\n", kind, printable(id), hint(kind, id, "job"))
	}
	return nil
}
