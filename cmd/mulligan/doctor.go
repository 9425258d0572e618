package main

import (
	"context"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan/internal/doctor"
)

func (p *program) doctorCommand() *cobra.Command {
	var monitor string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check the server, the streams, the consumers and who is alive",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.doctor(cmd.Context(), monitor) },
	}
	c.Flags().StringVar(&monitor, "monitor", "", "the server's monitoring page, such as http://127.0.0.1:8222, to check how often it flushes to disk")
	return c
}

func (p *program) doctor(ctx context.Context, monitor string) error {
	l, err := p.connect("doctor")
	if err != nil {
		return err
	}
	defer l.nc.Close()
	found, err := doctor.Doctor{Conn: l.nc, Topology: l.topology, Monitor: monitor}.Check(ctx)
	if err != nil {
		return err
	}
	if p.asJSON {
		if err := p.printJSON(found); err != nil {
			return err
		}
	} else {
		p.findings(found)
	}
	if n := doctor.Failed(found); n > 0 {
		return fmt.Errorf("%d of %d checks failed", n, len(found))
	}
	return nil
}

func (p *program) findings(found []doctor.Finding) {
	var rows []table.Row
	for _, f := range found {
		rows = append(rows, table.Row{string(f.Status), f.Check, f.Detail})
	}
	p.printTable(table.Row{"", "check", "found"}, rows)
	for _, f := range found {
		if f.Do != "" {
			p.printf("%s: %s: %s\n", f.Status, f.Check, f.Do)
		}
	}
}
