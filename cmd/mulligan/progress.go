package main

import (
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
)

// A bar shows how far a long file has come, if a terminal watches. A nil bar
// shows nothing.
type bar struct {
	writer  progress.Writer
	tracker *progress.Tracker
	ended   chan struct{}
}

func newBar(out io.Writer, size int64) *bar {
	if size < longFile || !terminal(out) {
		return nil
	}
	b := &bar{writer: progress.NewWriter(), ended: make(chan struct{}),
		tracker: &progress.Tracker{Message: "publishing", Total: size, Units: progress.UnitsBytes}}
	b.writer.SetOutputWriter(out)
	b.writer.SetAutoStop(true)
	b.writer.SetUpdateFrequency(200 * time.Millisecond)
	b.writer.SetTrackerLength(30)
	b.writer.AppendTracker(b.tracker)
	go func() {
		defer close(b.ended)
		b.writer.Render()
	}()
	return b
}

func (b *bar) add(bytes int) {
	if b != nil {
		b.tracker.Increment(int64(bytes))
	}
}

// log writes a line, above the bar if there is one.
func (b *bar) log(out io.Writer, line string) {
	if b == nil {
		_, _ = fmt.Fprintln(out, line)
		return
	}
	b.writer.Log("%s", line)
}

// stop waits until nothing more is written.
func (b *bar) stop(whole bool) {
	if b == nil {
		return
	}
	if whole {
		b.tracker.MarkAsDone()
	} else {
		b.tracker.MarkAsErrored()
	}
	<-b.ended // it stops by itself once its tracker has
}
