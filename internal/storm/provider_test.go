package storm

import (
	"errors"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

// answers makes calls at once and returns how many had which result.
func answers(w *world, calls int) map[budget.Result]int {
	got := map[budget.Result]int{}
	for range calls {
		w.provider.call(&job{}, w.c.Timeout, func(err error) { got[budget.OutcomeOf(err).Result]++ })
	}
	w.run()
	return got
}

func TestTheProviderRefusesWhatItsQueueDoesNotHold(t *testing.T) {
	w := newWorld(Case{Horizon: time.Minute, Timeout: time.Hour, Servers: 2, Service: time.Second, Queue: 3}, 1)
	if got := answers(w, 8); got[budget.Succeeded] != 5 || got[budget.Throttled] != 3 {
		t.Errorf("of 8 calls at once, with 2 servers and a queue of 3: %v", got)
	}
}

func TestTheProviderWorksOnForClientsThatHaveGone(t *testing.T) {
	w := newWorld(Case{Horizon: time.Hour, Timeout: time.Millisecond, Servers: 1, Service: time.Minute, Queue: 10}, 1)
	if got := answers(w, 5); got[budget.TimedOut] != 5 {
		t.Errorf("of 5 calls: %v, want that all time out", got)
	}
	if p := w.provider; p.worked == 0 || p.wasted != p.worked {
		t.Errorf("it worked for %v, of which %v were for nobody", p.worked, p.wasted)
	}
}

func TestTheProviderSaysWhenToComeBackAboveItsLimit(t *testing.T) {
	w := newWorld(Case{Horizon: time.Minute, Timeout: time.Hour, Servers: 9, Service: time.Millisecond, Queue: 9, Limit: 2}, 1)
	var last error
	for range 3 {
		w.provider.call(&job{}, w.c.Timeout, func(err error) { last = errors.Join(last, err) })
	}
	w.run()
	var throttled *mulligan.ThrottledError
	if !errors.As(last, &throttled) || throttled.Delay != time.Second {
		t.Errorf("the third call in a second: %v, want a hint of a second", last)
	}
	w.at(w.began.Add(time.Second), func() {})
	w.run()
	if got := answers(w, 2); got[budget.Succeeded] != 2 {
		t.Errorf("in the next second: %v", got)
	}
}
