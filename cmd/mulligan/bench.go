package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan/internal/bench"
	"github.com/mulligan-queue/mulligan/internal/config"
	"github.com/mulligan-queue/mulligan/internal/embedded"
)

// benchOptions are the flags of `mulligan bench`.
type benchOptions struct {
	rounds int
	sync   string
	list   bool
	serve  string // be the server, with streams in this directory
}

func (p *program) benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:   "bench [CASE...]",
		Short: "Measure throughput and latency beside a bare loop of nats.go",
		Long: "Measure what a user gets, beside the same work done by a loop of nats.go and nothing else: both in\n" +
			"turn, against one NATS server in a process of its own, so that the ratios can be quoted. Without\n" +
			"names it measures all cases that have goals; stored, kinds, downstreams and users say what more of them\n" +
			"costs. It exits with 1 if a goal was not met.",
		RunE: func(cmd *cobra.Command, names []string) error {
			if o.serve != "" {
				return p.benchServer(o)
			}
			return p.bench(cmd.Context(), o, names)
		},
	}
	f := c.Flags()
	f.IntVar(&o.rounds, "rounds", 5, "how often both sides do each case; the figures are the medians")
	f.StringVar(&o.sync, "sync", "2m", "when the server flushes to disk: always, or every so often; 2m is the server's own default")
	f.BoolVar(&o.list, "list", false, "list the cases and their goals, and measure nothing")
	f.StringVar(&o.serve, "serve", "", "be the server of a measurement, with streams in this directory")
	_ = f.MarkHidden("serve") // fails for a flag that does not exist only
	return c
}

// benchRun is a measurement as JSON.
type benchRun struct {
	At      time.Time      `json:"at"`
	Machine benchMachine   `json:"machine"`
	Rounds  int            `json:"rounds"`
	Sync    string         `json:"sync"`
	Results []bench.Result `json:"results"`
}

// benchMachine is where it was measured.
type benchMachine struct {
	OS    string `json:"os"`
	Arch  string `json:"arch"`
	Cores int    `json:"cores"`
	Model string `json:"model,omitempty"`
	Go    string `json:"go"`
	NATS  string `json:"nats"`
}

func (p *program) bench(ctx context.Context, o benchOptions, names []string) error {
	cases, err := benchCases(names)
	switch {
	case err != nil:
		return err
	case o.rounds < 1 || o.rounds > 1000:
		return usage("--rounds %d is not between 1 and 1000", o.rounds)
	case o.list:
		return p.benchList(cases)
	}
	if _, err := config.SyncInterval(o.sync); err != nil {
		return usage("%w", err)
	}
	run := benchRun{At: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Rounds: o.rounds, Sync: o.sync}
	for _, c := range cases {
		var r bench.Result
		if r, err = p.benchCase(ctx, o, c); err != nil {
			break // what was measured by then is shown
		}
		run.Results = append(run.Results, r)
	}
	switch {
	case err != nil && len(run.Results) == 0:
	case p.asJSON:
		err = errors.Join(err, p.printJSON(run))
	default:
		p.benchTable(run)
	}
	if missed := missedGoals(run.Results); err == nil && missed > 0 {
		err = fmt.Errorf("%d goals were not met", missed)
	}
	return err
}

func benchCases(names []string) (cases []bench.Case, err error) {
	if len(names) == 0 {
		return bench.Cases(), nil
	}
	all := slices.Concat(bench.Cases(), bench.Growth())
	for _, name := range names {
		found := false
		for _, c := range all {
			if c.Name == name || strings.HasPrefix(c.Name, name+"-") {
				cases, found = append(cases, c), true
			}
		}
		if !found {
			return nil, usage("there is no case %q; `mulligan bench --list` names them", name)
		}
	}
	return cases, nil
}

func missedGoals(results []bench.Result) (n int) {
	for _, r := range results {
		for _, f := range r.Figures {
			if !f.Met() {
				n++
			}
		}
	}
	return n
}

// benchCase measures a case on a server of its own.
func (p *program) benchCase(ctx context.Context, o benchOptions, c bench.Case) (r bench.Result, err error) {
	dir, err := os.MkdirTemp("", "mulligan-bench-")
	if err != nil {
		return r, fmt.Errorf("make a directory for the server: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, err := bench.Start(ctx, "bench", "--serve", dir, "--sync", cmp.Or(c.Sync, o.sync))
	if err != nil {
		return r, err
	}
	defer server.Stop()
	said := func(string) {}
	if terminal(p.err) {
		said = func(text string) { _, _ = fmt.Fprintf(p.err, "\r\033[K%s\r", text) }
	}
	return bench.Run(ctx, c, server, o.rounds, said)
}

// benchServer is a NATS server until standard input ends.
func (p *program) benchServer(o benchOptions) error {
	every, err := config.SyncInterval(o.sync)
	if err != nil {
		return usage("%w", err)
	}
	s, err := embedded.Start(embedded.Options{Dir: o.serve, Listen: "127.0.0.1:0", SyncInterval: every, Log: p.log})
	if err != nil {
		return err
	}
	defer s.Shutdown()
	p.printf("%s\n", s.ClientURL())
	_, err = io.Copy(io.Discard, p.in)
	return err
}

func thisMachine() benchMachine {
	m := benchMachine{OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(), NATS: embedded.Version()}
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m // not Linux
	}
	for line := range strings.Lines(string(cpus)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Model = strings.TrimSpace(value)
			break
		}
	}
	return m
}

func (p *program) benchList(cases []bench.Case) error {
	if p.asJSON {
		return p.printJSON(cases)
	}
	var rows []table.Row
	for _, c := range cases {
		goals := slices.DeleteFunc(slices.Clone(c.Measures), func(m bench.Measure) bool { return m.Goal == 0 })
		var texts []string
		for _, m := range goals {
			texts = append(texts, goal(m))
		}
		rows = append(rows, table.Row{c.Name, strings.Join(texts, ", "), c.About})
	}
	p.printTable(table.Row{"case", "goal", "what is done"}, rows)
	return nil
}

func (p *program) benchTable(run benchRun) {
	m := run.Machine
	p.printf("%s/%s, %d cores%s, %s, nats-server %s, sync %s; medians of %d rounds, both sides in turn\n",
		m.OS, m.Arch, m.Cores, prefixed(", ", m.Model), m.Go, m.NATS, run.Sync, run.Rounds)
	var rows []table.Row
	for _, r := range run.Results {
		name := r.Case
		if r.Against != "" {
			name += ", beside " + r.Against
		}
		for _, f := range r.Figures {
			met, ratio, spread := "", "", ""
			if !f.Alone && !f.Over {
				ratio, spread = fmt.Sprintf("%.2f", f.Ratio), fmt.Sprintf("%.2f–%.2f", f.Least, f.Most)
			}
			switch {
			case f.Goal == 0:
			case f.Met():
				met = "met"
			default:
				met = "MISSED"
			}
			rows = append(rows, table.Row{name, f.Name, amount(f.Bare, f.Unit), amount(f.Ours, f.Unit),
				ratio, spread, goal(f.Measure), met})
		}
	}
	p.printTable(table.Row{"case", "measure", "without", "mulligan", "ratio", "from–to", "goal", ""}, rows)
}

func prefixed(with, text string) string {
	if text == "" {
		return ""
	}
	return with + text
}

func goal(m bench.Measure) string {
	sign := "≥"
	if m.AtMost {
		sign = "≤"
	}
	switch {
	case m.Goal == 0:
		return ""
	case m.Alone:
		return m.Name + " " + sign + " " + amount(m.Goal, m.Unit)
	case m.Over:
		return m.Name + " " + sign + " " + amount(m.Goal, m.Unit) + " more"
	}
	return fmt.Sprintf("%s %s %.2f", m.Name, sign, m.Goal)
}

func amount(v float64, unit string) string {
	if v >= 100 {
		return strings.TrimSpace(fmt.Sprintf("%.0f %s", v, unit))
	}
	return strings.TrimSpace(fmt.Sprintf("%.3g %s", v, unit))
}
