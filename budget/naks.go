package budget

import (
	"slices"
	"sync"
	"time"
)

// The bounds on naks of one kind: a delayed nak keeps its place among the
// messages that the server has delivered and costs it a timer, so that many
// waiting ones hold fresh jobs up.
const (
	maxNaksWaiting = 16 // in this worker
	maxNaksPerSec  = 50 // over all workers
)

// A NakRoom bounds the naks of one kind in one worker: how many wait and, with
// the other workers, how many there are in a second. The zero NakRoom is empty
// and ready. It is safe for concurrent use.
type NakRoom struct {
	mu     sync.Mutex
	due    []time.Time // of those that wait
	recent []time.Time // taken within the last second
}

// Take takes a place for a nak that is due at a time, if there is one; workers
// is how many share the rate, fewer than one count as one.
func (n *NakRoom) Take(now, due time.Time, workers int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.due = slices.DeleteFunc(n.due, func(t time.Time) bool { return !t.After(now) })
	n.recent = slices.DeleteFunc(n.recent, func(t time.Time) bool { return now.Sub(t) >= time.Second })
	if len(n.due) >= maxNaksWaiting || len(n.recent) >= max(maxNaksPerSec/max(workers, 1), 1) {
		return false
	}
	n.due = append(n.due, due)
	n.recent = append(n.recent, now)
	return true
}

// Back gives back the place that was taken for due at now.
func (n *NakRoom) Back(now, due time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	remove(&n.due, due)
	remove(&n.recent, now)
}

func remove(from *[]time.Time, t time.Time) {
	if i := slices.IndexFunc(*from, t.Equal); i >= 0 {
		*from = slices.Delete(*from, i, i+1)
	}
}

// Waiting counts the naks that are not due yet.
func (n *NakRoom) Waiting(now time.Time) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.due = slices.DeleteFunc(n.due, func(t time.Time) bool { return !t.After(now) })
	return len(n.due)
}
