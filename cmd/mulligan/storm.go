package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan/internal/storm"
)

// stormOptions are the flags of `mulligan storm`.
type stormOptions struct {
	name  string
	load  float64
	seeds storm.Seeds
	svg   string
}

// maxSeeds keeps a slip of the keys from a computation of hours.
const maxSeeds = 1000

func (p *program) stormCommand() *cobra.Command {
	var o stormOptions
	c := &cobra.Command{
		Use:   "storm",
		Short: "Simulate what policies of retrying do to a provider that fails for a while",
		Long: "Simulate what policies of retrying do to a provider that fails for a while. Mulligan's part is\n" +
			"the code that its worker runs, with the settings that it ships with. Nothing is called and no\n" +
			"server is needed; the same seed gives the same numbers.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.storm(o, cmd.Flags().Changed("load"))
		},
	}
	f := c.Flags()
	f.StringVar(&o.name, "case", "standard", "one of "+strings.Join(storm.Names(), ", "))
	f.Float64Var(&o.load, "load", 0.7, "jobs that arrive, as a share of what the provider serves")
	f.Uint64Var(&o.seeds.First, "seed", 1, "the first seed")
	f.IntVar(&o.seeds.N, "seeds", 1, "how many seeds to run; the figures are the means")
	f.StringVar(&o.svg, "svg", "", "draw attempts and successes over time into this file")
	return c
}

func (p *program) storm(o stormOptions, loaded bool) error {
	cases, err := storm.Named(o.name, o.load)
	switch {
	case err != nil:
		return usage("%w", err)
	case o.seeds.N < 1 || o.seeds.N > maxSeeds:
		return usage("--seeds %d is not between 1 and %d", o.seeds.N, maxSeeds)
	case o.name == storm.Phase && loaded:
		return usage("the phase diagram has loads of its own; leave out --load")
	case o.name == storm.Phase && o.svg != "":
		return usage("--svg draws one case over time, and the phase diagram is many")
	}
	policies := storm.Policies()
	reports := storm.Run(cases, policies, o.seeds, p.stormProgress())
	if o.svg != "" {
		if err := drawStorm(o.svg, cases[0], reports[:len(policies)]); err != nil {
			return err
		}
	}
	switch {
	case p.asJSON:
		return p.printJSON(reports)
	case o.name == storm.Phase:
		p.phaseTable(reports, len(policies))
	default:
		p.stormTable(cases, reports)
	}
	return nil
}

// stormProgress returns what to call after each run: it shows how many are left,
// if a terminal watches.
func (p *program) stormProgress() func(left int) {
	if !terminal(p.err) {
		return nil
	}
	var mu sync.Mutex
	return func(left int) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(p.err, "\r%d runs to go \r", left)
	}
}

func drawStorm(path string, c storm.Case, reports []storm.Report) error {
	var b bytes.Buffer
	if err := storm.Draw(&b, c, reports); err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}

func (p *program) stormTable(cases []storm.Case, reports []storm.Report) {
	c := cases[0]
	p.printf("%s: %s; load %.0f %%\n", c.Name, c.About, 100*c.Load)
	var rows []table.Row
	for _, r := range reports {
		policy := r.Policy
		if r.Case != c.Name {
			policy += ", " + strings.TrimPrefix(r.Case, c.Name+" ")
		}
		inFault := fmt.Sprintf("%.2f", r.InFault)
		if c.From == c.To && c.Herd == 0 {
			inFault = "" // there is none
		}
		rows = append(rows, table.Row{policy, inFault, fmt.Sprintf("%.2f", r.After), percent(r.Wasted), recovered(r), drained(r),
			percent(r.Success), fmt.Sprintf("%.1f", r.Dead), fmt.Sprintf("%.2f s", r.P50), fmt.Sprintf("%.2f s", r.P99)})
	}
	p.printTable(table.Row{"policy", "attempts in fault", "after", "wasted", "recovers", "drained", "done", "dead", "p50", "p99"}, rows)
	p.printf("attempts: of a job that arrived in the fault, or after it. wasted: the provider's work that nobody waited\n" +
		"for, or that failed. recovers: after the fault successes keep up with arrivals for good. drained: no job is\n" +
		"open for over a second. p50, p99: from a job's arrival until it was done.\n")
	if c.Poison > 0 {
		p.printf("All this is of the other users' jobs. cured: that user's calls succeed.\n")
	}
}

// phaseTable has a row for each load and a column for each policy.
func (p *program) phaseTable(reports []storm.Report, policies int) {
	header := table.Row{"load"}
	for _, r := range reports[:policies] {
		header = append(header, r.Policy)
	}
	var rows []table.Row
	for ; len(reports) > 0; reports = reports[policies:] {
		row := table.Row{fmt.Sprintf("%.0f %%", 100*reports[0].Load)}
		for _, r := range reports[:policies] {
			row = append(row, percent(r.Success)+", "+recovered(r))
		}
		rows = append(rows, row)
	}
	p.printTable(header, rows)
	p.printf("the share of the jobs that were done, and when after the fault successes kept up with arrivals again\n")
}

// recovered is how long it took, and in how many runs it never happened.
func recovered(r storm.Report) string {
	switch r.Never {
	case 0:
		return sinceFault(r.Recovery)
	case r.Seeds:
		return "never"
	}
	return fmt.Sprintf("%s, never in %d of %d", sinceFault(r.Recovery), r.Never, r.Seeds)
}

// drained is how long it took, at least if there are runs in which it never came.
func drained(r storm.Report) string {
	if r.Drained != nil && r.Worst.Drained == nil {
		return "over " + sinceFault(r.Drained)
	}
	return sinceFault(r.Drained)
}

func sinceFault(s *float64) string {
	if s == nil {
		return "never"
	}
	return fmt.Sprintf("%.1f s", *s)
}

func percent(share float64) string { return fmt.Sprintf("%.2f %%", 100*share) }
