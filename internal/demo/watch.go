package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
)

// Watch prints each event as one line on out, until ctx ends: in colour if out
// is a terminal and NO_COLOR is not set. A job that works at its first attempt
// has no event. A summary follows every so often and at the end; a summaryEvery
// of zero means at the end only.
func Watch(ctx context.Context, nc *nats.Conn, topology mulligan.Topology, out io.Writer, summaryEvery time.Duration) error {
	const waiting = 4096 // more than that are dropped while out is slow
	events := make(chan *nats.Msg, waiting)
	sub, err := nc.ChanSubscribe(topology.EventsRoot()+".>", events)
	if err != nil {
		return fmt.Errorf("watch events: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.FlushTimeout(5 * time.Second); err != nil {
		return fmt.Errorf("watch events: %w", err)
	}
	v := view{out: out, colour: terminal(out)}
	v.print(headings(), text.Faint)
	var tick <-chan time.Time
	if summaryEvery > 0 {
		t := time.NewTicker(summaryEvery)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case m := <-events:
			v.show(m.Data)
		case <-tick:
			v.print(v.seen.String(), text.Bold)
		case <-ctx.Done():
			v.print(v.seen.String(), text.Bold)
			return nil
		}
	}
}

// view prints events and counts them.
type view struct {
	out    io.Writer
	colour bool
	seen   counts
}

func (v *view) show(data []byte) {
	var e mulligan.Event
	if json.Unmarshal(data, &e) != nil {
		return // not ours
	}
	v.seen.add(e.Event)
	e.At = e.At.Local()
	v.print(line(e), colourOf(e.Event))
}

func (v *view) print(s string, c text.Color) {
	if v.colour {
		s = text.Escape(s, c.EscapeSeq())
	}
	_, _ = fmt.Fprintln(v.out, s)
}

func colourOf(event string) text.Color {
	switch event {
	case mulligan.EventRetry:
		return text.FgYellow
	case mulligan.EventRecovered:
		return text.FgGreen
	case mulligan.EventDeferred:
		return text.FgCyan
	case mulligan.EventSpent:
		return text.FgMagenta
	case mulligan.EventDead:
		return text.FgRed
	}
	return text.FgBlue
}

// terminal reports whether out is one that wants colours.
func terminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// counts are the events so far.
type counts struct{ retries, deferred, recovered, dead, replayed int }

func (c *counts) add(event string) {
	switch event {
	case mulligan.EventRetry:
		c.retries++
	case mulligan.EventDeferred:
		c.deferred++
	case mulligan.EventRecovered:
		c.recovered++
	case mulligan.EventDead:
		c.dead++
	case mulligan.EventReplayed:
		c.replayed++
	}
}

// String is the summary.
func (c counts) String() string {
	return fmt.Sprintf("so far: %d retries, %d deferred, %d replayed; of %d jobs that failed and ended, %d recovered and %d are dead",
		c.retries, c.deferred, c.replayed, c.recovered+c.dead, c.recovered, c.dead)
}

func headings() string {
	return columns("time", "what", "kind", "id", "try", "why")
}

// line is an event on one line.
func line(e mulligan.Event) string {
	try := ""
	if e.Attempt > 0 {
		try = fmt.Sprint(e.Attempt)
	}
	return columns(e.At.Format("15:04:05.000"), strings.ToUpper(e.Event), e.Kind, e.ID, try, why(e))
}

// why says what was behind an event, and when the job comes back.
func why(e mulligan.Event) string {
	s := string(e.Reason)
	switch {
	case e.Event == mulligan.EventRecovered && e.ErrorType != "":
		s = "after " + e.ErrorType
	case s == "":
		s = e.ErrorType
	case e.ErrorType != "":
		s += ": " + e.ErrorType
	}
	if e.Delay > 0 {
		s += ", again in " + e.Delay.Round(time.Millisecond).String()
	}
	return strings.TrimPrefix(s, ", ")
}

// columns aligns the parts of a line, and cuts what is too long for its column.
func columns(parts ...string) string {
	widths := []int{12, 9, 14, 26, 3}
	var b strings.Builder
	for i, part := range parts {
		part = strings.Map(visible, part)
		if i == len(widths) {
			b.WriteString(part)
			break
		}
		b.WriteString(text.Pad(text.Snip(part, widths[i], "…"), widths[i]+2, ' '))
	}
	return strings.TrimRight(b.String(), " ")
}

// visible keeps what a stranger wrote in an ID from steering the terminal.
func visible(r rune) rune {
	if !unicode.IsPrint(r) {
		return '?'
	}
	return r
}
