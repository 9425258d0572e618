package witness

import (
	"slices"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// story is all that is known of one key.
type story struct {
	key       string // kind and token, as in the ledger
	kind      kind
	id        string
	tries     []Said[Published] // of payloads that may have been stored
	acks      []Said[Published]
	sent      int
	refusals  int
	stored    map[string]int // messages that may have been, by payload
	calls     []*Call        // oldest first
	operated  []Said[Operated]
	letters   []Letter // its own: one at most
	conflicts []Letter // of other payloads under the key
	record    *mulligan.Record
}

// stories sorts the evidence by key.
func stories(e *Evidence) map[string]*story {
	all := map[string]*story{}
	of := func(kindName, id string) *story {
		key := mulligan.RecordKey(kindName, tokenOf(id))
		if all[key] == nil {
			k, _ := kindOf(kindName)
			k.name = kindName
			all[key] = &story{key: key, kind: k, id: id, record: e.Records[key], stored: map[string]int{}}
		}
		return all[key]
	}
	for _, p := range e.Published {
		of(p.Line.Kind, p.Line.ID).hear(p)
	}
	for i := range e.Calls {
		s := of(e.Calls[i].Kind, e.Calls[i].ID)
		s.calls = append(s.calls, &e.Calls[i])
	}
	for _, o := range e.Operated {
		s := of(o.Line.Kind, o.Line.ID)
		s.operated = append(s.operated, o)
	}
	for _, l := range e.Letters {
		s := of(l.Kind, l.ID)
		if l.Reason == mulligan.KeyConflict {
			s.conflicts = append(s.conflicts, l)
		} else {
			s.letters = append(s.letters, l)
		}
	}
	for _, s := range all {
		s.believe()
		s.tries = slices.DeleteFunc(s.tries, func(p Said[Published]) bool { return s.stored[p.Line.Payload] < 1 })
	}
	return all
}

// hear takes in what a publisher said of the key.
func (s *story) hear(p Said[Published]) {
	switch p.Line.What {
	case Trying:
		s.tries = append(s.tries, p)
		s.sent++
		s.stored[p.Line.Payload]++
	case Acked:
		s.acks = append(s.acks, p)
		if p.Line.Duplicate { // of a message that was stored before, or of none
			s.stored[p.Line.Payload]--
		}
	case Refused:
		s.refusals++
		s.stored[p.Line.Payload]--
	}
}

// believe counts a message for each payload that is acknowledged as the key's: one
// that is a duplicate of itself, too. An HTTP client sends again by itself what has
// an idempotency key, once its connection broke.
func (s *story) believe() {
	for _, a := range s.acks {
		if p := a.Line.Payload; a.Line.Variant == 0 {
			s.stored[p] = max(s.stored[p], 1)
		}
	}
}

// messages is how many of the key may have been stored.
func (s *story) messages() (n int) {
	for _, of := range s.stored {
		n += max(of, 0)
	}
	return n
}

// tokenOf is the form of an ID in keys, also of one that came as a header in that
// form because it is not ASCII.
func tokenOf(id string) string {
	if strings.HasPrefix(id, "=") {
		return id
	}
	return mulligan.Token(id)
}

// tried reports whether a payload was published under the key.
func (s *story) tried(payload string) bool {
	return slices.ContainsFunc(s.tries, func(p Said[Published]) bool { return p.Line.Payload == payload })
}

// conflicting reports whether publishers really sent several payloads.
func (s *story) conflicting() bool {
	return slices.ContainsFunc(s.tries, func(p Said[Published]) bool { return p.Line.Payload != s.tries[0].Line.Payload })
}

// did counts what an operator did with the key, or may have done.
func (s *story) did(what string, but mulligan.Reason) (n int) {
	answered := map[int]string{}
	for _, o := range s.operated {
		answered[o.Line.N] = o.Line.Answer
	}
	for _, o := range s.operated {
		if o.Line.Answer == "" && o.Line.What == what && o.Line.Reason != but && answered[o.Line.N] != OperatorFailed {
			n++
		}
	}
	return n
}

// discards counts letters of one kind that an operator has deleted, or may have.
func (s *story) discards(conflicts bool) int {
	own := s.did(Discard, mulligan.KeyConflict)
	if conflicts {
		return s.did(Discard, "") - own
	}
	return own
}

// lives is how often the key may have begun with fresh attempts: by an operator,
// and a pure key with each message, since none of them looks at what was before.
func (s *story) lives() int {
	n := 1 + s.did(Replay, "") + s.did(ResolveNotDone, "")
	if s.kind.effect == mulligan.Pure {
		n += s.messages() - 1
	}
	return n
}

// reopened reports whether an operator sent the key back, or may have, in a time.
// A command that was begun may have its effect as late as its answer.
func (s *story) reopened(from, to time.Time) bool {
	return slices.ContainsFunc(s.operated, func(o Said[Operated]) bool {
		return o.Line.What != Discard && o.At.Add(operatorWaits).After(from) && o.At.Before(to)
	})
}

// succeeded reports whether the downstream gave a good answer.
func (c *Call) succeeded() bool { return c.Answer.Status == 200 && !c.Gone && !c.Ended.IsZero() }

// next is when the key was called for the next time after an attempt that ended at
// a time; zero if it was not.
func (s *story) next(attempt int, ended time.Time) time.Time {
	for _, call := range s.calls {
		if call.Attempt > attempt && !call.Began.Before(ended) {
			return call.Began
		}
	}
	return time.Time{}
}

// throttled reports whether the downstream asked for fewer calls.
func (c *Call) throttled() bool {
	return c.Answer.Hint > 0 || (c.Answer.Status == 429 || c.Answer.Status == 503) && c.Answer.Outcome == ""
}

// doubtful reports whether nobody but the downstream knows what became of it.
func (c *Call) doubtful() bool {
	return c.Ended.IsZero() || c.Gone || c.Answer.Drop || c.Answer.Status >= 429 && c.Answer.Outcome != notStarted
}

// same reports whether a record or letter names a payload.
func same(f mulligan.Fingerprint, payload string) bool {
	return f != "" && strings.HasPrefix(payload, string(f))
}

// retried reports whether a call of the key is a retry, and not the same attempt
// once more, as after a crash.
func (s *story) retried(i int) bool {
	return i > 0 && s.calls[i].Attempt > 1 && s.calls[i].Attempt > s.calls[i-1].Attempt
}
