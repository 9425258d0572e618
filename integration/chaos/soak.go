//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

const (
	faultEvery = 20 * time.Second
	soakShare  = 0.7 // of the capacity
)

// soak publishes a part of what the whole can take while the faults happen.
func (r *rig) soak(ctx context.Context, rep *report) error {
	if err := r.capacity(ctx, rep); err != nil {
		return err
	}
	if err := r.pace(rep, soakShare*rep.Load.Capacity); err != nil {
		return err
	}
	p := r.during("soaked", func() { r.wreck(ctx, rep.Faults) })
	rep.Load.Phases = append(rep.Load.Phases, p)
	return nil
}

// A row is a series that is judged, and what it may gain besides a fifth.
type row struct {
	of, what string
	level
	slack float64
}

func (w row) verdict() string {
	switch {
	case w.Points < shortest:
		return "too short"
	case w.holds(w.slack):
		return "level"
	}
	return "GROWS"
}

// What a series may gain besides a fifth of what it was. A server has an index of
// the keys that it holds, which are more with every job.
const (
	memorySlack     = 32 << 20
	memoryPerKey    = 1 << 10 // of a server
	handlesSlack    = 20
	goroutinesSlack = 50
	backlogSlack    = 20 * time.Second // of jobs, which faults hold up
)

// soakRows are the series of a time, by process and by stream. What grows with the
// jobs is judged by its bytes for each key.
func soakRows(l *load, in phase) (rows []row) {
	keys := 0.0
	var ofStreams []row
	for _, stream := range append(streams(), "MULLIGAN_EVENTS") {
		if slices.Contains(streams()[:2], stream) {
			ofStreams = append(ofStreams, row{stream, messages, levelOf(longest(l.Samples, stream, messages, in)), l.Rate * backlogSlack.Seconds()})
			continue
		}
		held := levelOf(longest(l.Samples, stream, messages, in))
		keys += max(0, held.Late-held.Early)
		ofStreams = append(ofStreams, row{stream, perKey, levelOf(perMessage(l.Samples, stream, in)), 0})
	}
	for _, name := range slices.Concat(servers(), ours()) {
		slack := float64(memorySlack)
		if slices.Contains(servers(), name) {
			slack += memoryPerKey * keys
		}
		rows = append(rows, row{name, memory, levelOf(longest(l.Samples, name, memory, in)), slack},
			row{name, handles, levelOf(longest(l.Samples, name, handles, in)), handlesSlack},
			row{name, goroutines, levelOf(longest(l.Samples, name, goroutines, in)), goroutinesSlack})
	}
	return append(rows, ofStreams...)
}

const perKey = "bytes per key"

// perMessage is how many bytes a stream has for each of its messages.
func perMessage(all []sample, stream string, in phase) (points []float64) {
	n, bytes := longest(all, stream, messages, in), longest(all, stream, held, in)
	for i := range min(len(n), len(bytes)) {
		if n[i] > 0 {
			points = append(points, bytes[i]/n[i])
		}
	}
	return points
}

// soaked judges the rows, all of one figure together.
func soaked(rows []row) (checks []verdict) {
	for _, what := range []string{memory, handles, goroutines, messages, perKey} {
		v, judged := verdict{What: what + " levels off", OK: true}, 0
		roles := map[string]bool{}
		for _, w := range rows {
			if w.what != what {
				continue
			}
			role := strings.TrimRight(w.of, "0123456789")
			roles[role] = roles[role] || w.Points >= shortest
			switch w.verdict() {
			case "GROWS":
				v.OK, v.Saw = false, v.Saw+fmt.Sprintf("%s from %s to %s; ", w.of, figure(what, w.Early), figure(what, w.Late))
				judged++
			case "level":
				judged++
			}
		}
		for role, any := range roles {
			if !any {
				v.OK, v.Saw = false, v.Saw+"no life of a "+role+" was long enough to tell; "
			}
		}
		v.Saw += fmt.Sprintf("%d series judged", judged)
		checks = append(checks, v)
	}
	return checks
}

// empty judges what streams of work hold once all is done.
func empty(l *load) (checks []verdict) {
	for _, stream := range streams()[:2] {
		last := -1.0
		for _, s := range l.Samples {
			if s.Of == stream && s.What == held {
				last = s.Value
			}
		}
		checks = append(checks, verdict{stream + " is empty at the end", last == 0, figure(memory, last)})
	}
	return checks
}

// figure is a value for people.
func figure(what string, v float64) string {
	if what == memory || what == peak {
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	}
	return fmt.Sprintf("%.0f", v)
}

// printRows prints the series as a table.
func printRows(to io.Writer, rows []row) {
	t := table.NewWriter()
	t.SetOutputMirror(to)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"of", "what", "points", "after warm-up", "at the end", "most", "may be", ""})
	for _, w := range rows {
		t.AppendRow(table.Row{w.of, w.what, w.Points, figure(w.what, w.Early), figure(w.what, w.Late), figure(w.what, w.Peak), figure(w.what, 1.2*w.Early+w.slack), w.verdict()})
	}
	t.Render()
}
