package main

import (
	"context"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
)

func (p *program) jobCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "job KIND ID",
		Short: "Show where a job is, its attempts and why, and its result",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mulligan.ValidKindName(args[0]); err != nil {
				return &usageError{err}
			}
			return p.job(cmd.Context(), args[0], args[1])
		},
	}
}

func (p *program) job(ctx context.Context, kind, id string) error {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	l, err := p.connect("job")
	if err != nil {
		return err
	}
	defer l.nc.Close()
	pub := mulligan.Publisher{Conn: l.nc, Topology: l.topology}
	st, err := pub.Status(ctx, kind, id)
	if err != nil {
		return err
	}
	v := api.View(st)
	if p.asJSON {
		return p.printJSON(v)
	}
	p.showJob(v)
	return nil
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
	if v.State == mulligan.StatusUnknown {
		p.printf("it was never published, or is a pure job that succeeded at its first attempt: of those nothing is kept\n")
	}
	switch {
	case v.ResultTooLarge:
		p.printf("result: %d bytes, too large to be kept\n", v.ResultSize)
	case len(v.Result) > 0:
		p.printf("result: %s\n", printable(string(v.Result)))
	}
	if len(v.History) == 0 {
		return
	}
	p.printf("\n")
	var rows []table.Row
	for _, a := range v.History {
		rows = append(rows, table.Row{a.Number, local(a.At), seconds(a.TookSeconds), a.ErrorType, string(a.Verb), string(a.Reason), seconds(a.DelaySeconds), a.Error})
	}
	p.printTable(table.Row{"attempt", "at", "took", "type", "then", "reason", "after", "error"}, rows)
}

func seconds(s float64) string {
	if s == 0 {
		return ""
	}
	return fmt.Sprintf("%.3fs", s)
}
