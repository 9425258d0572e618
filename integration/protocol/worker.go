package main

// worker emits what worker i does next.
func (c *Model) worker(s State, i int, e emit) {
	who := [...]string{"W1", "W2"}[i]
	switch p := s.workers[i]; p.pc {
	case got:
		c.looks(s, i, who, e)
	case call:
		c.calls(s, i, who, e)
	case stepBegin:
		c.comes(s, i, who, e)
	case stepDo:
		c.acts(s, i, who, e)
	case stepEnd:
		c.records(s, i, who, e)
	case recordDone:
		c.note(s, i, act{who: who, did: "records done of", m: p.m}, func(r *record) decision { return c.succeed(r, p.m) }, e)
	case recordFail:
		a := act{who: who, did: "records a failure of", m: p.m}
		c.note(s, i, a, func(r *record) decision { return c.fail(r, p, false) }, e)
		c.note(s, i, a, func(r *record) decision { return c.fail(r, p, true) }, e)
	case doNak:
		if o := s.find(p.m.addr); o != nil {
			o.avail = true
		}
		s.workers[i] = proc{}
		e(act{who: who, did: "naks", m: p.m}, s)
	case doAck:
		s.ack(&s.workers[i])
		e(act{who: who, did: "acks", m: p.m}, s)
	default:
		c.moves(s, i, who, e)
	}
}

// note emits one compare-and-set of the record and what follows from it.
func (c *Model) note(s State, i int, a act, decide func(*record) decision, e emit) {
	r := s.rec
	d := decide(&r)
	s.write(r)
	p := &s.workers[i]
	p.pc, p.out, p.looked = d.then, d.out, r.status != none
	p.first = c.FirstIsFree && !r.retried()
	if d.started {
		s.workers[0].own, s.workers[1].own = false, false
		p.own = true
	}
	a.why = d.why
	if a.why != "" {
		a.why += ", "
	}
	a.why += d.then.String()
	e(a, s)
}

// looks: the record is read and the message admitted.
func (c *Model) looks(s State, i int, who string, e emit) {
	m := s.workers[i].m
	if c.Kind == pure && m.from == published && !m.again {
		s.workers[i].pc = c.first()
		c.count(&s)
		e(act{who: who, did: "looks nowhere and runs", m: m}, s)
		return
	}
	a := act{who: who, did: "looks for", m: m}
	counted := func(a act, n State) {
		if n.workers[i].pc == c.first() {
			switch c.count(&n); {
			case s.rec.waits:
				n.bad = badEarly
			case m.first && s.rec.retried() && !s.rec.paid(m):
				n.bad = badToken
			}
		}
		e(a, n)
	}
	c.note(s, i, a, func(r *record) decision { return c.admit(r, m, false) }, counted)
	if ended := s.old.status == spent || s.old.status == dead; s.old.tells && ended && s.old.pay == m.pay && !c.CertainEnd {
		n := s
		n.workers[i].pc, n.workers[i].out = pubSpent, s.old.reason
		e(act{who: who, did: "is told that the key has ended of", m: m}, n)
	}
	if s.rec.starter != 0 && s.rec.starter != m.addr {
		c.note(s, i, a, func(r *record) decision { return c.admit(r, m, true) }, counted)
	}
}

// calls: a handler without steps is called and ends in each way it can.
func (c *Model) calls(s State, i int, who string, e emit) {
	p := s.workers[i]
	outcomes := c.outcomes()
	if s.snooze > 0 {
		outcomes = append(outcomes, snoozed)
	}
	for _, o := range outcomes {
		n := s
		q := &n.workers[i]
		q.out, q.pc = o, recordFail
		switch o {
		case ok, doubtful:
			c.effect(&n, p.m.pay, 0)
		case snoozed:
			n.snooze--
			c.allow(&n, 1)
		}
		if o == ok {
			n.succeeded[p.m.pay] = true
			q.pc = recordDone
			if c.Kind == pure && !p.looked {
				q.pc = doAck
			}
		}
		e(act{who: who, did: "calls the handler for", m: p.m, why: o.String()}, n)
	}
}

// outcomes of a call. A doubtful failure without an effect is the milder one of
// the two; for a kind that may be repeated it is no other than a failure.
func (c *Model) outcomes() []outcome {
	if c.Kind == once {
		return []outcome{ok, notStarted, doubtful, permanent}
	}
	return []outcome{ok, notStarted, permanent}
}

// effect k of the handler happens downstream.
func (c *Model) effect(n *State, what int8, k int8) {
	switch c.Kind {
	case once:
		if n.effects[k] = min(n.effects[k]+1, 3); n.effects[k] > 1+n.forgiven[k] {
			n.bad = badTwice
		}
	case keyed:
		if n.effects[k] |= 1 << what; n.effects[k] == 3 {
			n.bad = badPayloads
		}
	}
}

// count counts a run.
func (c *Model) count(n *State) {
	if c.Runs {
		if n.slack--; n.slack < 0 {
			n.bad = badRuns
		}
	}
}

// moves: a successor is stored. Where its id was stored before, the server
// answers duplicate, or has forgotten.
func (c *Model) moves(s State, i int, who string, e emit) {
	p := s.workers[i]
	s.workers[i].pc = doAck
	var (
		id  *set
		did string
	)
	switch p.pc {
	case pubPark:
		id, did = &s.ids.park, "stores the schedule of"
	case pubWait:
		id, did = &s.ids.wait, "stores the waiting schedule of"
	case pubSettle:
		if id, did = &s.ids.settle, "settles"; !c.SettleID {
			id = &s.ids.spend
		}
	default:
		id, did = &s.ids.spend, "hands to the schedulers"
	}
	if id.has(p.m.addr) {
		e(act{who: who, did: did, m: p.m, why: "duplicate"}, s)
	}
	id.add(p.m.addr)
	var made msg
	if p.pc == pubPark || p.pc == pubWait {
		made = s.schedule(p)
	} else {
		made = msg{addr: s.fresh(), pay: p.m.pay, avail: true, reason: p.out}
		s.store(s.spent[:], made)
	}
	e(act{who: who, did: did, m: p.m, why: "stored", made: made}, s)
}

// schedule stores a schedule. It replaces one of the same message: they have the
// same subject.
func (s *State) schedule(p proc) msg {
	for k := range s.at {
		if s.at[k].addr != 0 && s.at[k].origin == p.m.addr {
			s.at[k] = msg{}
		}
	}
	m := msg{addr: s.fresh(), origin: p.m.addr, pay: p.m.pay, from: retry, first: p.first}
	if p.pc == pubWait {
		m.from, m.bound = waiter, s.rec.waits
	}
	s.store(s.at[:], m)
	return m
}
