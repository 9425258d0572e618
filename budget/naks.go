package budget

import (
	"slices"
	"sync"
	"time"
)

// maxNaksWaiting is how many naks of one kind wait in one worker, which keeps their
// messages until they are due.
const maxNaksWaiting = 128

// A NakRoom bounds how many naks of one kind wait in one worker. The zero NakRoom
// is empty and ready. It is safe for concurrent use.
type NakRoom struct {
	mu  sync.Mutex
	due []time.Time // of those that wait
}

// Take takes a place for a nak that is due at a time, if there is one.
func (n *NakRoom) Take(now, due time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leave(now)
	if len(n.due) >= maxNaksWaiting {
		return false
	}
	n.due = append(n.due, due)
	return true
}

// Back gives back a place that was taken for due.
func (n *NakRoom) Back(due time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := slices.IndexFunc(n.due, due.Equal); i >= 0 {
		n.due = slices.Delete(n.due, i, i+1)
	}
}

// Waiting counts the naks that are not due yet.
func (n *NakRoom) Waiting(now time.Time) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leave(now)
	return len(n.due)
}

func (n *NakRoom) leave(now time.Time) {
	n.due = slices.DeleteFunc(n.due, func(t time.Time) bool { return !t.After(now) })
}
