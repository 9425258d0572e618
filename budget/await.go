package budget

import (
	"context"
	"fmt"
	"time"
)

// Await calls ask, with the time of the machine, until it answers with the zero
// Wait, and sleeps in between: until the time that the answer names, or until a
// call of d has ended or a token was given back, whichever is first. Once
// ctx has ended it returns an error, with the cause of the last wait, and asks
// no more.
func (d *Downstream) Await(ctx context.Context, ask func(now time.Time) Wait) error {
	var w Wait
	var changed <-chan struct{} // nil the first time: mostly that is enough
	for ctx.Err() == nil {
		if w = ask(time.Now()); w.Why == "" {
			return nil
		}
		if changed != nil {
			w.sleep(ctx, changed)
		}
		changed = d.watch()
	}
	return fmt.Errorf("wait for a downstream (%s): %w", w.Why, ctx.Err())
}

func (w Wait) sleep(ctx context.Context, changed <-chan struct{}) {
	var due <-chan time.Time
	if !w.Until.IsZero() {
		t := time.NewTimer(time.Until(w.Until))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-changed:
	case <-due:
	case <-ctx.Done():
	}
}

// watch returns a channel that is closed when something may be granted that was
// not.
func (d *Downstream) watch() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	return d.changed
}

// stir has all who wait ask again.
func (d *Downstream) stir() {
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}
