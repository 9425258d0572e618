package witness

import (
	"fmt"
	"slices"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// fate checks that each accepted key has ended, in one way, and that who says so
// has a reason (I1).
func (c *checker) fate(s *story) {
	if len(s.tries) == 0 && len(s.calls)+len(s.letters)+len(s.conflicts) == 0 && s.record == nil {
		return // nothing was stored, and nothing came of it
	}
	if len(s.tries) == 0 {
		c.violate("I1", s.key, "only keys that were published", fmt.Sprintf("%d calls, %d letters, record %v", len(s.calls), len(s.letters)+len(s.conflicts), s.record != nil))
		return
	}
	var asked []string
	for _, a := range s.acks {
		// A duplicate that carries another payload than its key was not stored, and
		// its publisher was told so.
		if p := a.Line.Payload; !slices.Contains(asked, p) && (!a.Line.Duplicate || a.Line.Variant == 0) {
			asked = append(asked, p)
			if ended := c.ended(s, p); ended == "" {
				c.violate("I1", s.key, "payload "+p[:8]+", accepted at "+clock(a.At)+", to be done, dead or discarded", c.known(s))
			}
		}
	}
	c.recordHolds(s)
	if len(s.letters) > 1 {
		c.violate("I1", s.key, "one letter of a key at most", fmt.Sprintf("%d", len(s.letters)))
	}
}

// ended says how a payload of the key has ended; empty if it has not.
func (c *checker) ended(s *story, payload string) string {
	with := func(l Letter) bool { return l.Payload == payload }
	good := func(call *Call) bool { return call.Payload == payload && call.succeeded() }
	switch r := s.record; {
	case r != nil && r.State == mulligan.Done && same(r.Payload, payload):
		return "done"
	case slices.ContainsFunc(s.letters, with):
		return "dead"
	case slices.ContainsFunc(s.conflicts, with):
		return "conflict"
	case s.kind.effect == mulligan.Pure && slices.ContainsFunc(s.calls, good):
		return "finished"
	case s.discards(false) > 0 && (r == nil || same(r.Payload, payload)):
		return "discarded"
	case s.discards(true) > 0 && r != nil && !same(r.Payload, payload):
		return "discarded"
	}
	return ""
}

func (c *checker) known(s *story) string {
	state := "no record"
	if s.record != nil {
		state = "record " + string(s.record.State) + " of " + string(s.record.Payload[:min(8, len(s.record.Payload))])
	}
	return fmt.Sprintf("%s, %d letters, %d conflicts, %d calls", state, len(s.letters), len(s.conflicts), len(s.calls))
}

// recordHolds checks that the record says what is so.
func (c *checker) recordHolds(s *story) {
	r := s.record
	unsure := s.did(Replay, "") + s.did(ResolveDone, "") + s.did(ResolveNotDone, "")
	if r == nil {
		if len(s.letters) > 0 {
			c.violate("I1", s.key, "the record of a letter", "none")
		}
		return
	}
	if !slices.ContainsFunc(s.tries, func(p Said[Published]) bool { return same(r.Payload, p.Line.Payload) }) {
		c.violate("I1", s.key, "the record of a payload that was published", string(r.Payload))
	}
	switch r.State {
	case mulligan.Done:
		c.doneIsTrue(s)
	case mulligan.Dead:
		if len(s.letters) == 0 && s.discards(false) == 0 {
			c.violate("I1", s.key, "the letter of a record that says dead", "none")
		}
	default:
		// A replay that was interrupted has reopened the record and not yet published;
		// its letter is still there to be replayed again. And a pure job keeps no record
		// of a good answer to its first delivery: who was given it beside that, and fails
		// later, begins one.
		beside := s.kind.effect == mulligan.Pure && slices.ContainsFunc(s.calls, (*Call).succeeded) && slices.ContainsFunc(s.calls, c.faults.hit)
		if !beside && (len(s.letters) == 0 || unsure == 0) {
			c.violate("I1", s.key, "a record that has ended, as nothing is left in the streams", string(r.State))
		}
	}
}

// doneIsTrue checks that the downstream, or a person, said so.
func (c *checker) doneIsTrue(s *story) {
	// A person whose answer was interrupted is told that the letter stays.
	if len(s.letters) > 0 && s.did(ResolveDone, "") == 0 {
		c.violate("I1", s.key, "done or dead", "a record that says done, and letter "+fmt.Sprint(s.letters[0].Seq, " ", s.letters[0].Reason))
	}
	if s.did(ResolveDone, "") > 0 {
		return
	}
	for _, call := range s.calls {
		if call.Answer.Status == 200 && s.record.Result != nil && string(s.record.Result.Data) == call.Receipt {
			return
		}
	}
	got := "no result"
	if s.record.Result != nil {
		got = fmt.Sprintf("%.60q", s.record.Result.Data)
	}
	c.violate("I1", s.key, "done with a receipt that the downstream gave", got)
}

// effects checks what happened how often, and that each call said the same (I2).
func (c *checker) effects(s *story) {
	happened, payload := 0, ""
	for _, call := range s.calls {
		if call.Answer.Effect {
			happened++
		}
		if want := keyOf(s.kind.name, s.unescaped()); call.Key != want || call.Path != s.kind.name {
			c.violate("I2", s.key, "the key "+want+" at each call", call.Key+" at "+call.Path)
		}
		if !s.tried(call.Payload) {
			c.violate("I2", s.key, "a payload as published", fmt.Sprintf("%d bytes, %.8s, at call %d", call.Size, call.Payload, call.Nth))
		}
		if payload != "" && payload != call.Payload {
			c.violate("I2", s.key, "one payload at all calls", fmt.Sprintf("%.8s and %.8s", payload, call.Payload))
		}
		payload = call.Payload
	}
	if s.kind.effect == mulligan.Pure {
		return
	}
	most := 1
	if s.kind.effect == mulligan.Once { // a person accepted that it happens again
		most += s.did(ResolveNotDone, "")
	}
	if happened > most {
		c.violate("I2", s.key, fmt.Sprintf("at most %d effects", most), fmt.Sprint(happened))
	}
	c.doneIsOver(s)
}

// unescaped is the ID itself, should it have been seen first as a token.
func (s *story) unescaped() string {
	if id, err := mulligan.ParseToken(tokenOf(s.id)); err == nil {
		return id
	}
	return s.id
}

// race is for how long after the good answer another message of the key may still
// call: it was admitted before the record said done.
const race = 2 * time.Second

// doneIsOver checks that a key that is known as done is not called again.
func (c *checker) doneIsOver(s *story) {
	for i, first := range s.calls {
		// On a busy machine the caller of a slow call had begun to wait long before.
		patience := callTimeout
		if d := s.deadline(); !d.IsZero() {
			patience = min(patience, d.Sub(first.Began))
		}
		slow := first.Ended.Sub(first.Began) > patience/4
		if !first.succeeded() || slow || c.faults.unheard(first) {
			continue
		}
		known := first.Ended
		if s.messages() > 1 {
			known = known.Add(race)
		}
		if until, ok := c.faults.shaken(first); ok && until.After(known) {
			known = until
		}
		for _, later := range s.calls[i+1:] {
			if later.Began.After(known) && !c.inHand(later, known) {
				c.violate("I2", s.key, "no call after the good answer of "+clock(first.Ended), fmt.Sprintf("call %d by %s at %s", later.Nth, later.Worker, clock(later.Began)))
				return
			}
		}
	}
}

// inHand reports whether a call may have been begun before a time: by a worker
// that was stopped, slow or cut off from then until it arrived, or on a connection
// that the downstream did not serve for as long. One such fault may follow another.
func (c *checker) inHand(call *Call, before time.Time) bool {
	until := before.Add(race)
	held := time.Time{}
	for again := true; again; {
		again = false
		for _, s := range c.faults {
			over := s.At.Add(s.For + s.trail())
			if (s.workers[call.Worker] || s.ways[call.Worker]) && s.overlaps(before, until, linger) && over.After(held) {
				held, until, again = over, later(until, over), true
			}
		}
	}
	return !call.Began.After(held)
}
