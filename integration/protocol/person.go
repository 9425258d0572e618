package main

// person emits what a person does about the letters: a plain replay, or the
// answer to a doubt.
func (c *Model) person(s State, e emit) {
	p := &s.person
	if p.pc == idle {
		c.reads(s, e)
		return
	}
	if s.crash > 0 {
		n := s
		n.crash--
		n.replay++
		c.allow(&n, 1)
		n.person = proc{}
		e(act{who: "person", did: "is interrupted", mishap: true}, n)
	}
	switch p.pc {
	case isDone:
		c.declares(s, e)
	case reopen, notDone:
		c.reopens(s, e)
	case pubJob:
		c.republishes(s, e)
	case delLetter:
		a := act{who: "person", did: "deletes the letter", m: p.m}
		if s.letter.addr == p.m.addr || c.done(&s, s.letter) { // else a newer letter, which stays
			s.letter = msg{}
		}
		s.person = proc{}
		e(a, s)
	}
}

// later gives up; the letter is there for another try.
func (s State) later(why string, e emit) {
	s.person = proc{}
	s.replay++
	e(act{who: "person", did: "is refused", why: why}, s)
}

// reads: a person reads the letter and the record, and decides. While a spent
// message of the key waits to be buried there is nothing to decide.
func (c *Model) reads(s State, e emit) {
	if s.replay == 0 {
		return
	}
	s.replay--
	for p := range s.conflicts {
		if !c.ConflictStays && s.conflicts[p] && s.rec.status == done {
			n := s
			n.conflicts[p] = false
			e(act{who: "person", did: "replays a key conflict", why: "done, the letter goes", mishap: true}, n)
		}
	}
	if s.letter.addr == 0 || s.spent != [maxDue]msg{} {
		return
	}
	doubts := s.letter.reason == inDoubt || c.RecordReason && s.rec.doubt()
	does := func(what pc, did string) {
		n := s
		n.person = proc{pc: what, m: s.letter}
		e(act{who: "person", did: did, m: s.letter, mishap: true}, n)
	}
	if !doubts {
		does(reopen, "replays letter")
		return
	}
	does(notDone, "says not done to letter")
	does(isDone, "says done to letter")
}

// declares: the person knows that the effect happened.
func (c *Model) declares(s State, e emit) {
	if s.rec.pay == s.person.m.pay && s.rec.status != done {
		s.write(c.finished(s.rec, s.rec.pay))
	}
	s.closed = true
	s.person.pc = delLetter
	e(act{who: "person", did: "records done"}, s)
}

// reopens: the key may run again, its attempts counted from one.
func (c *Model) reopens(s State, e emit) {
	p, r := &s.person, s.rec
	knows := p.pc == notDone
	a := act{who: "person", did: "reopens the key"}
	p.pc = pubJob
	switch {
	case r.status == done && (r.pay == p.m.pay || !c.DonePayload):
		p.pc = delLetter
		a.why = "done: only the letter goes"
	case !knows && c.RecordReason && r.doubt():
		s.later("in doubt by now", e)
		return
	case (r.status == live || r.status == parked) && c.ReopenOnce:
		a.why = "it is open: an earlier replay was interrupted"
	default:
		if r.ended() {
			c.allow(&s, c.Attempts)
		}
		c.renew(&s, knows)
		p.looked = true
	}
	e(a, s)
}

// renew makes the record live again. Who answered a doubt may be wrong about a
// run that is still to end: its effect is forgiven.
func (c *Model) renew(s *State, knows bool) {
	r := record{status: live, pay: s.person.m.pay, reopened: true}
	for k, at := range s.rec.steps {
		if knows && (at == begun || c.Steps == 0 && k == 0) {
			s.forgiven[k] = min(s.forgiven[k]+1, 3)
		}
		if at == recorded && c.StepsStay {
			r.steps[k], r.value = recorded, s.rec.value
		}
	}
	s.write(r)
	if c.ReopeningInID {
		s.ids.replay = 0 // no id with the new name was stored
	}
}

// republishes: the job of the letter is stored again.
func (c *Model) republishes(s State, e emit) {
	p := &s.person
	a := act{who: "person", did: "publishes the job of letter", m: p.m}
	if s.ids.replay.has(p.m.addr) {
		n := s
		n.person.pc = delLetter
		if p.looked {
			n.bad = badSwallowed
		}
		a.why = "duplicate"
		e(a, n)
	}
	if s.jobs.addr != 0 {
		s.later("queued already", e)
		return
	}
	s.jobs = msg{addr: s.fresh(), pay: p.m.pay, avail: true, from: replayed}
	s.ids.replay.add(p.m.addr)
	p.pc = delLetter
	a.why, a.made = "stored", s.jobs
	e(a, s)
}
