package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/doctor"
)

// kindView is a declared kind and who serves it.
type kindView struct {
	mulligan.Kind
	Workers []doctor.Process `json:"workers"`
}

func (p *program) kindsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kinds",
		Short: "Show the declared kinds and the live workers that serve them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.showKinds(cmd.Context()) },
	}
}

func (p *program) showKinds(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	l, err := p.connect("kinds")
	if err != nil {
		return err
	}
	defer l.nc.Close()
	kinds, err := l.topology.Kinds(ctx, l.js)
	if err != nil {
		return err
	}
	live, err := doctor.Live(ctx, l.nc, l.topology, consumer.ServiceName)
	if err != nil {
		return err
	}
	views := []kindView{}
	for _, k := range kinds {
		v := kindView{Kind: k, Workers: []doctor.Process{}}
		for _, w := range live {
			if slices.Contains(w.Kinds, k.Name) {
				v.Workers = append(v.Workers, w)
			}
		}
		views = append(views, v)
	}
	if p.asJSON {
		return p.printJSON(views)
	}
	p.kindsTable(views)
	return nil
}

func (p *program) kindsTable(views []kindView) {
	if len(views) == 0 {
		p.printf("no kinds are declared: start a worker, or run `mulligan provision --config FILE`\n")
		return
	}
	var rows []table.Row
	for _, v := range views {
		var who []string
		for _, w := range v.Workers {
			who = append(who, w.Host+"/"+w.PID)
		}
		if who == nil {
			who = []string{"nobody"}
		}
		policy := fmt.Sprintf("%d attempts in %v", v.Policy.Attempts, v.Policy.Total)
		rows = append(rows, table.Row{v.Name, string(v.Effect), v.Downstream, policy, strings.Join(who, " ")})
	}
	p.printTable(table.Row{"kind", "effect", "downstream", "policy", "served by"}, rows)
}
