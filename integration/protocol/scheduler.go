package main

// scheduler emits what scheduler i does next with a spent message.
func (c *Model) scheduler(s State, i int, e emit) {
	who := [...]string{"S1", "S2"}[i]
	p := &s.schedulers[i]
	m := p.m
	finished := c.done(&s, m)
	switch p.pc {
	case got:
		a := act{who: who, did: "looks for spent", m: m}
		if p.pc = pubLetter; finished {
			p.pc, a.why = doAck, "done"
			if c.DoneDeletes && s.letter.addr != 0 && s.letter.pay == m.pay {
				s.letter, a.why = msg{}, "done, deletes the letter"
			}
		}
		e(a, s)
	case pubLetter:
		c.writes(s, i, who, e)
	case markDead:
		if s.old.tells && s.old.status != spent && !c.CertainEnd {
			n := s
			n.schedulers[i].pc = doAck
			e(act{who: who, did: "is told that there is nothing to mark dead of", m: m}, n)
		}
		a := act{who: who, did: "marks dead the key of", m: m}
		if r := &s.rec; r.pay == m.pay && (r.status == spent || r.status != done && !c.DeadOnlySpent) {
			if !r.ended() {
				s.bad = badBuried
			}
			r.status = dead
		}
		if finished && c.TakeBack && s.letter.origin == m.addr {
			s.letter, a.why = msg{}, "done, deletes its letter"
		}
		p.pc = doAck
		e(a, s)
	case doAck:
		s.ack(p)
		e(act{who: who, did: "acks spent", m: m}, s)
	}
}

// writes: the letter is stored; it replaces an older one of the key. That of a
// key conflict has a subject of its own.
func (c *Model) writes(s State, i int, who string, e emit) {
	p := &s.schedulers[i]
	a := act{who: who, did: "writes the letter of", m: p.m}
	if p.m.reason == conflict {
		p.pc, s.conflicts[p.m.pay] = doAck, true
		a.why = "on its own subject"
		e(a, s)
		return
	}
	p.pc = markDead
	if s.ids.letter.has(p.m.addr) {
		a.why = "duplicate"
		e(a, s)
	}
	s.ids.letter.add(p.m.addr)
	s.letter = msg{addr: s.fresh(), origin: p.m.addr, pay: p.m.pay, reason: p.m.reason}
	a.why, a.made = p.m.reason.String(), s.letter
	e(a, s)
}

// done says that the key of m is done with its payload.
func (c *Model) done(s *State, m msg) bool {
	return s.rec.status == done && (s.rec.pay == m.pay || !c.DonePayload)
}
