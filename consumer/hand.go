package consumer

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// delivery is a message in this worker's hands.
type delivery struct {
	facts
	msg    jetstream.Msg
	env    mulligan.Envelope
	bad    error // why it is not a job
	from   *source
	signed time.Time // when the server last had a sign of it; guarded by the hand
}

// open reads a message that was pulled. What is not a job is a delivery too.
func (s *source) open(msg jetstream.Msg, now time.Time) *delivery {
	d := &delivery{msg: msg, from: s, signed: now}
	meta, err := msg.Metadata()
	if err != nil {
		d.bad = err
		return d
	}
	kind, token := mulligan.SplitSubject(s.root, msg.Subject())
	raw := natsMsg(msg)
	if s.jobs {
		d.env, d.bad = mulligan.OpenJob(kind, token, raw, meta.Timestamp)
	} else {
		d.env, d.bad = mulligan.OpenMoved(kind, token, raw)
	}
	d.facts = facts{
		address: mulligan.Address(meta.Stream, meta.Sequence.Stream), fromJobs: s.jobs, again: meta.NumDelivered > 1,
		start: msg.Reply(), deadline: d.env.Deadline, notBefore: d.env.NotBefore,
	}
	return d
}

// hand holds the messages that this worker was given and has not let go of. It
// gives the server a sign of each, so that no other worker gets it meanwhile.
// It is safe for concurrent use.
type hand struct {
	mu   sync.Mutex
	held map[*delivery]bool // true once it has begun
}

func (h *hand) add(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[d] = false
}

// begin reports whether d may start: whether it is still held, and the server
// has had a sign of it lately enough not to have given it to another.
func (h *hand) begin(d *delivery, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.held[d]; !ok {
		return false
	}
	const margin = 2 * time.Second
	if now.Sub(d.signed) > mulligan.AckWait-margin {
		delete(h.held, d)
		return false
	}
	h.held[d] = true
	return true
}

func (h *hand) drop(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.held, d)
}

// sign gives the server a sign of each message, but gives back those that have
// waited here without starting: other workers may be free. It returns these.
func (h *hand) sign(now time.Time) (back []*delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for d, begun := range h.held {
		if !begun && now.Sub(d.signed) >= mulligan.ProgressEvery {
			delete(h.held, d)
			_ = d.msg.Nak() // lost, it comes back after AckWait
			back = append(back, d)
			continue
		}
		if begun && d.msg.InProgress() == nil {
			d.signed = now
		}
	}
	return back
}

// giveBackAll returns every message to the server and says how many had begun.
func (h *hand) giveBackAll() (begun int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for d, b := range h.held {
		_ = d.msg.Nak() // lost, it comes back after AckWait
		if b {
			begun++
		}
	}
	clear(h.held)
	return begun
}
