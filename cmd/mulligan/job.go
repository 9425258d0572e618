package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
)

const (
	waitFlag    = "wait"
	defaultWait = "30s"
)

func (p *program) jobCommand() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "job KIND ID",
		Short: "Show where a job is, its attempts and why, and its result",
		Long: "Show where a job is, its attempts and why, and its result.\n\n" +
			"With --wait, first wait until it is done, spent or dead. If the time is up before, the exit code is 1.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mulligan.ValidKindName(args[0]); err != nil {
				return &usageError{err}
			}
			if cmd.Flags().Changed(waitFlag) && wait <= 0 {
				return usage("--wait %v is not a time to wait, such as 30s", wait)
			}
			return p.job(cmd.Context(), args[0], args[1], wait)
		},
	}
	c.Flags().DurationVar(&wait, waitFlag, 0, "wait until it has ended, for this long at most")
	c.Flags().Lookup(waitFlag).NoOptDefVal = defaultWait
	return c
}

// joinWait gives --wait the duration that follows it. A flag that may go without
// a value would not take one after a space.
func joinWait(args []string) []string {
	args = slices.Clone(args)
	for i := 0; i+1 < len(args) && args[i] != "--"; i++ {
		if args[i] != "--"+waitFlag {
			continue
		}
		if _, err := time.ParseDuration(args[i+1]); err == nil {
			args[i] += "=" + args[i+1]
			args = slices.Delete(args, i+1, i+2)
		}
	}
	return args
}

func (p *program) job(ctx context.Context, kind, id string, wait time.Duration) error {
	l, err := p.connect("job")
	if err != nil {
		return err
	}
	defer l.nc.Close()
	pub := &mulligan.Publisher{Conn: l.nc, Topology: l.topology}
	st, late, err := look(ctx, pub, mulligan.Status{Kind: kind, ID: id}, wait)
	if wrongArgument(err) {
		return &usageError{err}
	}
	if err != nil {
		return err
	}
	v := api.View(st)
	if !p.asJSON {
		p.showJob(v)
	} else if err := p.printJSON(v); err != nil {
		return err
	}
	switch {
	case st.State == mulligan.StatusUnknown:
		return fmt.Errorf("nothing is known of %s %s: it was never published, or is a pure job that succeeded at its first attempt and whose kind does not have keep_results", kind, quote(id))
	case late:
		return fmt.Errorf("the time is up: after %v %s %s is %s; wait on with %s", wait, kind, quote(id), st.State, hint(kind, id, "job", "--wait="+wait.String()))
	}
	return nil
}

// look finds the job of a status, and waits for its end if there is a time for
// that; late says that the time was up before.
func look(ctx context.Context, pub *mulligan.Publisher, job mulligan.Status, wait time.Duration) (st mulligan.Status, late bool, err error) {
	ask, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	st, err = pub.Status(ask, job.Kind, job.ID)
	if wait == 0 || err != nil || st.State == mulligan.StatusUnknown {
		return st, false, err
	}
	within, stop := context.WithTimeout(ctx, wait)
	defer stop()
	last, err := pub.Wait(within, job.Kind, job.ID)
	late = within.Err() != nil && ctx.Err() == nil
	if err == nil || late && last.State != mulligan.StatusUnknown { // it may not have come to a look
		st = last
	}
	if late {
		err = nil
	}
	return st, late && (st.Record == nil || !st.Record.Ended()), err
}

func (p *program) showJob(v api.JobView) {
	p.printf("%s %s is %s", v.Kind, printable(v.ID), v.State)
	if v.Reason != "" {
		p.printf(" (%s)", v.Reason)
	}
	p.printf(", attempts: %d\n", v.Attempts)
	if v.Error != "" {
		p.printf("error: %s\n", printable(v.Error))
	}
	switch {
	case v.ResultTooLarge:
		p.printf("result: %d bytes, too large to be kept\n", v.ResultSize)
	case len(v.Result) > 0:
		p.printf("result: %s\n", printable(string(v.Result)))
	}
	p.showSteps(v.Steps)
	p.showHistory(v.History)
}

func (p *program) showSteps(steps []api.StepView) {
	if len(steps) == 0 {
		return
	}
	var rows []table.Row
	for _, s := range steps {
		size := ""
		switch {
		case s.ResultTooLarge:
			size = fmt.Sprintf("%d bytes, not kept", s.ResultSize)
		case s.State == api.StepDone:
			size = fmt.Sprintf("%d bytes", s.ResultSize)
		}
		rows = append(rows, table.Row{s.Name, s.State, local(s.At), size})
	}
	p.printf("\n")
	p.printTable(table.Row{"step", "state", "at", "result"}, rows)
}

func (p *program) showHistory(history []api.AttemptView) {
	if len(history) == 0 {
		return
	}
	var rows []table.Row
	for _, a := range history {
		rows = append(rows, table.Row{a.Number, local(a.At), seconds(a.TookSeconds), a.ErrorType, string(a.Verb), string(a.Reason), seconds(a.DelaySeconds), notes(a), a.Error})
	}
	header := table.Row{"attempt", "at", "took", "type", "then", "reason", "after", "notes", "error"}
	const at = 7 // of the notes, which most histories do not have
	if !slices.ContainsFunc(history, func(a api.AttemptView) bool { return notes(a) != "" }) {
		header = slices.Delete(header, at, at+1)
		for i := range rows {
			rows[i] = slices.Delete(rows[i], at, at+1)
		}
	}
	p.printf("\n")
	p.printTable(header, rows)
}

// notes are what is known of an attempt besides how it failed.
func notes(a api.AttemptView) string {
	var all []string
	if a.Tries > 1 {
		all = append(all, fmt.Sprintf("%d attempts in one call", a.Tries))
	}
	if a.Times > 1 {
		all = append(all, fmt.Sprintf("%d times in a row", a.Times))
	}
	if a.NotStarted {
		all = append(all, "no effect for certain")
	}
	if len(a.Change) > 0 {
		all = append(all, "changed "+string(a.Change))
	}
	return strings.Join(all, "; ")
}

func seconds(s float64) string {
	if s == 0 {
		return ""
	}
	return fmt.Sprintf("%.3fs", s)
}
