//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/mulligan-queue/mulligan"
)

// line is a run in one line.
func (rep report) line() string {
	w := rep.Witness
	verdict := "ok"
	if n := len(rep.Violations); n > 0 {
		verdict = fmt.Sprintf("%d VIOLATIONS", n)
	}
	return fmt.Sprintf("seed %d%s: %s, %s; %d jobs, %d attempts, %d retries, dead %s, drained in %v: %s",
		rep.Seed, rep.Built, applied(rep.Faults), blows(rep.Faults), w.Acked, w.Calls, w.Retries, counts(w.Dead), rep.Drained, verdict)
}

// applied says how many faults of each kind there were, of those drawn.
func applied(all []fault) string {
	drawn, done, total := map[string]int{}, map[string]int{}, 0
	for _, f := range all {
		drawn[f.What]++
		if f.Applied {
			done[f.What]++
			total++
		}
	}
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(drawn)) {
		parts = append(parts, fmt.Sprintf("%d/%d %s", done[what], drawn[what], what))
	}
	return fmt.Sprintf("%d/%d faults (%s)", total, len(all), strings.Join(parts, ", "))
}

// blows says how many calls were going on when a worker or the downstream was
// ended or stopped.
func blows(all []fault) string {
	var met []float64
	for _, f := range all {
		if f.blow() {
			met = append(met, float64(f.InFlight))
		}
	}
	if len(met) == 0 {
		return "no blow"
	}
	return fmt.Sprintf("%d blows met %.0f calls each, at most %.0f", len(met), median(met), slices.Max(met))
}

// print prints all runs together.
func (s *series) print(to io.Writer) {
	slices.SortFunc(s.reports, func(a, b report) int { return cmp.Compare(a.Seed, b.Seed) })
	var jobs, attempts, retries, violations int
	var faults []fault
	dead := map[mulligan.Reason]int{}
	for _, rep := range s.reports {
		jobs, attempts, retries = jobs+rep.Witness.Acked, attempts+rep.Witness.Calls, retries+rep.Witness.Retries
		violations += len(rep.Violations)
		faults = append(faults, rep.Faults...)
		for reason, n := range rep.Witness.Dead {
			dead[reason] += n
		}
	}
	t := table.NewWriter()
	t.SetOutputMirror(to)
	t.SetStyle(table.StyleLight)
	t.AppendRows([]table.Row{
		{"runs", len(s.reports)}, {"faults", applied(faults)}, {"in flight", blows(faults)}, {"jobs", jobs}, {"attempts", attempts}, {"retries", retries},
		{"dead", counts(dead)}, {"violations", violations},
	})
	t.Render()
}

// counts lists what there is, the most frequent first.
func counts[K cmp.Ordered](of map[K]int) string {
	keys := slices.SortedFunc(maps.Keys(of), func(a, b K) int {
		return cmp.Or(cmp.Compare(of[b], of[a]), cmp.Compare(a, b))
	})
	total, parts := 0, []string{}
	for _, k := range keys {
		total += of[k]
		parts = append(parts, fmt.Sprintf("%d %v", of[k], k))
	}
	if total == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(parts, ", "))
}
