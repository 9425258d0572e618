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
	return fmt.Sprintf("seed %d: %d faults, %d jobs, %d attempts, %d retries, dead %s, drained in %v: %s",
		rep.Seed, len(rep.Faults), w.Acked, w.Calls, w.Retries, counts(w.Dead), rep.Drained, verdict)
}

// print prints all runs together.
func (s *series) print(to io.Writer) {
	slices.SortFunc(s.reports, func(a, b report) int { return cmp.Compare(a.Seed, b.Seed) })
	var jobs, attempts, retries, violations int
	faults, dead := map[string]int{}, map[mulligan.Reason]int{}
	for _, rep := range s.reports {
		jobs, attempts, retries = jobs+rep.Witness.Acked, attempts+rep.Witness.Calls, retries+rep.Witness.Retries
		violations += len(rep.Violations)
		for _, f := range rep.Faults {
			faults[f.What]++
		}
		for reason, n := range rep.Witness.Dead {
			dead[reason] += n
		}
	}
	t := table.NewWriter()
	t.SetOutputMirror(to)
	t.SetStyle(table.StyleLight)
	t.AppendRows([]table.Row{
		{"runs", len(s.reports)}, {"faults", counts(faults)}, {"jobs", jobs}, {"attempts", attempts}, {"retries", retries},
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
