package consumer

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/dedupe"
)

// delivery is a message in this worker's hands.
type delivery struct {
	facts
	msg    *nats.Msg
	env    mulligan.Envelope
	bad    error     // why it is not a job
	life   string    // the last reopening of the key, as its record named it
	tries  int       // attempts that are known of, the one that runs included
	stored time.Time // when the server stored it
	from   *source
	lane   *lane
	token  *budget.Token // of a message that was pulled as a retry
	permit budget.Permit // of its call, once it may start
	alarm  *alarm        // of its slot
	ahead  uint64        // messages of its consumer that wait behind it
	nth    uint64        // among the deliveries of its consumer
	seen   dedupe.Sight  // the record of its key
	retry  bool          // as its record says, what comes next is a retry
	old    bool          // it may have been delivered before, though it is not again
	placed bool          // it has a place to wait for its nak

	// Guarded by the hand.
	latest *nats.Msg // the newest delivery of the message, if there was another
	signed time.Time // when the server last had a sign of it
	taken  bool      // by a slot
	begun  bool
	rests  bool // until its nak is sent
}

// open reads a message that was pulled. What is not a job is a delivery too.
func (s *source) open(msg *nats.Msg, now time.Time) *delivery {
	d := &delivery{msg: msg, from: s, lane: s.lane, signed: now}
	meta, err := msg.Metadata()
	if err != nil {
		d.bad = err
		return d
	}
	kind, token := mulligan.SplitSubject(s.Root, msg.Subject)
	fresh := s == s.lane.fresh
	if fresh {
		d.env, d.bad = mulligan.OpenJob(kind, token, msg, meta.Timestamp)
	} else {
		d.env, d.bad = mulligan.OpenMoved(kind, token, msg)
	}
	d.stored, d.ahead, d.nth = meta.Timestamp, meta.NumPending, meta.Sequence.Consumer
	d.facts = facts{
		address: address{meta.Stream, meta.Sequence.Stream}, fromJobs: fresh, deferred: s == s.lane.deferred, again: meta.NumDelivered > 1,
		deadline: d.env.Deadline, notBefore: d.env.NotBefore, hasUser: d.env.User != "", due: d.env.Due,
	}
	return d
}

// identify gives d what its key's record knows it by, before that is read or
// written: the payload's fingerprint, and a name of its own. Not the reply subject: a
// consumer that was made anew may give the same message the same one again.
func (d *delivery) identify() {
	if d.start == "" {
		d.payload, d.start = d.env.Fingerprint(), nuid.Next()
	}
}

// heed notes what a move of d needs to know of the record of its key.
func (d *delivery) heed(r *mulligan.Record) { d.life, d.retry = r.Replay, r.Retried() }

// hand holds the messages that this worker was given and has not let go of. It
// gives the server a sign of each, so that no other worker gets it meanwhile.
// It is safe for concurrent use.
type hand struct {
	mu   sync.Mutex
	held map[address]*delivery
}

// add takes d in hand, unless the same message runs here already: after the
// server was away for longer than AckWait it delivers again what this worker
// still works on, and the signs and the end of that count for both.
func (h *hand) add(d *delivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if had := h.held[d.address]; had != nil && had.begun {
		had.signed, had.latest = d.signed, d.msg
		return false
	}
	h.held[d.address] = d
	return true
}

// take notes that a slot waits to begin d, and reports whether d is still held.
func (h *hand) take(d *delivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.taken = h.held[d.address] == d
	return d.taken
}

// begin reports whether d may start: whether it is still held, and the server
// has had a sign of it lately enough not to have given it to another.
func (h *hand) begin(d *delivery, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[d.address] != d {
		return false
	}
	const margin = 2 * time.Second
	if now.Sub(d.signed) > mulligan.AckWait-margin {
		delete(h.held, d.address)
		return false
	}
	d.begun = true
	return true
}

// release lets go of d and returns its newest delivery: that is the one to answer.
func (h *hand) release(d *delivery) *nats.Msg {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[d.address] == d {
		delete(h.held, d.address)
	}
	return d.newest()
}

// newest is the newest delivery of the message; the hand's lock is held.
func (d *delivery) newest() *nats.Msg {
	if d.latest != nil {
		return d.latest
	}
	return d.msg
}

// drop lets go of d, unless it waits for its nak.
func (h *hand) drop(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[d.address] == d && !d.rests {
		delete(h.held, d.address)
	}
}

// rest keeps d until it is due, without a slot, and has nak called with what is to be
// answered then, unless d has been given back.
func (h *hand) rest(d *delivery, due time.Time, nak func(*nats.Msg)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[d.address] != d {
		return
	}
	d.rests = true
	time.AfterFunc(time.Until(due), func() {
		if msg := h.rested(d, time.Since(due)); msg != nil {
			nak(msg)
		}
	})
}

// rested lets go of d, which has rested for so much longer than it was to, and
// returns its newest delivery, or nil if there is nothing to answer: it was given
// back, or this process stood still for so long that it may be with another worker,
// from whom a nak would take it.
func (h *hand) rested(d *delivery, late time.Duration) *nats.Msg {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[d.address] != d {
		return nil
	}
	delete(h.held, d.address)
	if late > mulligan.AckWait/2 {
		return nil
	}
	return d.newest()
}

// sign gives the server a sign of each message, but gives back those that have
// waited here without a slot, or for a downstream that is held: other workers may
// be free, and the fault may be this one's. It returns these.
func (h *hand) sign(now time.Time) (back []*delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, d := range h.held {
		waits := !d.begun && (!d.taken || d.lane.calls.Held(now).Why != "")
		if waits && now.Sub(d.signed) >= mulligan.ProgressEvery {
			delete(h.held, at)
			_ = d.msg.Nak() // lost, it comes back after AckWait
			back = append(back, d)
			continue
		}
		if d.taken && d.msg.InProgress() == nil {
			d.signed = now
		}
	}
	return back
}

// count is how many messages of a downstream are in hand.
func (h *hand) count(l *lane) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.held {
		if d.lane == l {
			n++
		}
	}
	return n
}

// giveBackAll returns every message to the server and says how many had begun and
// not ended. One that waited for its nak comes too early then: who is given it finds
// in its record when it is due.
func (h *hand) giveBackAll() (begun int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.held {
		_ = d.newest().Nak() // lost, it comes back after AckWait
		if d.begun && !d.rests {
			begun++
		}
	}
	clear(h.held)
	return begun
}
