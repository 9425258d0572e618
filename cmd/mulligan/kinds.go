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
	Name        string           `json:"name"`
	Effect      mulligan.Effect  `json:"effect"`
	Policy      mulligan.Policy  `json:"policy"`
	Downstream  string           `json:"downstream"`
	KeyTTL      string           `json:"key_ttl,omitempty"`
	KeepResults bool             `json:"keep_results,omitempty"`
	MaxResult   int              `json:"max_result"` // in bytes
	Workers     []doctor.Process `json:"workers"`
}

func newKindView(k mulligan.Kind, live []doctor.Process) kindView {
	v := kindView{Name: k.Name, Effect: k.Effect, Policy: k.Policy, Downstream: k.Downstream,
		KeepResults: k.KeepResults, MaxResult: k.MaxResult, Workers: []doctor.Process{}}
	if k.KeyTTL != 0 {
		v.KeyTTL = k.KeyTTL.String()
	}
	for _, w := range live {
		if slices.Contains(w.Kinds, k.Name) {
			v.Workers = append(v.Workers, w)
		}
	}
	return v
}

// special are the settings of a kind that are not the default.
func (v kindView) special() string {
	var all []string
	if v.KeyTTL != "" && v.KeyTTL != mulligan.DefaultKeyTTL.String() {
		all = append(all, "key_ttl "+v.KeyTTL)
	}
	if v.KeepResults {
		all = append(all, "keep_results")
	}
	if v.MaxResult != 0 && v.MaxResult != mulligan.DefaultMaxResult {
		all = append(all, fmt.Sprintf("max_result %d", v.MaxResult))
	}
	return strings.Join(all, ", ")
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
		views = append(views, newKindView(k, live))
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
		rows = append(rows, table.Row{v.Name, string(v.Effect), v.Downstream, policy, v.special(), strings.Join(who, " ")})
	}
	p.printTable(table.Row{"kind", "effect", "downstream", "policy", "other than default", "served by"}, rows)
}
