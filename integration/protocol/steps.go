package main

// comes: the run comes to a step. Its result is there already, or it begins, or
// it may not begin.
func (c *Model) comes(s State, i int, who string, e emit) {
	p := &s.workers[i]
	a := act{who: who, did: "comes to a step of", m: p.m}
	switch r := s.rec; {
	case r.status != none && r.pay == p.m.pay && r.steps[p.step] == recorded:
		p.value = r.value
		a.why = "its result is recorded"
		c.goOn(&s, p)
	case c.Kind != once || !c.StepBegins:
		p.pc = stepDo
	case c.StepOwnsStart && !(r.status == live && p.own):
		// Whoever took the start over, or ended the key, answers for the message.
		s.release(p)
		a.why = "the start is not its own any more"
	case !c.StepOwnsStart && r.steps[p.step] == begun:
		a.why = "another began it, "
		c.note(s, i, a, func(r *record) decision { return c.doubts(r, p.m) }, e)
		return
	default:
		a.why = "begins it"
		c.beginsStep(&s, p)
	}
	e(a, s)
}

// doubts: what a run does that finds its step begun by another, if nothing but
// that keeps it from beginning.
func (c *Model) doubts(r *record, m msg) decision {
	switch {
	case r.status == done:
		return decision{then: doAck, why: "done"}
	case r.ended():
		return c.follow(r)
	}
	return c.spend(r, m, inDoubt)
}

func (c *Model) beginsStep(s *State, p *proc) {
	switch {
	case s.closed:
		s.bad = badAfter
	case s.rec.waits:
		s.bad = badEarly
	}
	s.rec.steps[p.step] = begun
	p.pc = stepDo
}

// goOn: what follows a step whose result the run has.
func (c *Model) goOn(n *State, p *proc) {
	p.step++
	p.pc = stepBegin
	if int(p.step) == c.Steps {
		p.pc = recordDone
		n.succeeded[p.m.pay] = true
	}
}

// acts: a step has its effect, or fails.
func (c *Model) acts(s State, i int, who string, e emit) {
	p := s.workers[i]
	for _, o := range c.outcomes() {
		n := s
		q := &n.workers[i]
		q.out, q.pc = o, recordFail
		if o == ok || o == doubtful {
			c.effect(&n, max(p.m.pay, p.value), p.step)
		}
		a := act{who: who, did: "makes a step of", m: p.m, why: o.String()}
		if o != ok {
			e(a, n)
			continue
		}
		q.pc = stepEnd
		e(a, n)
		if p.step == 0 && c.Kind == keyed { // what it returns may differ each time
			q.value = 1
			e(a, n)
		}
	}
}

// records: the result of a step is noted, whoever's start stands by now: it is a
// fact. The first result stands.
func (c *Model) records(s State, i int, who string, e emit) {
	p := &s.workers[i]
	r := &s.rec
	a := act{who: who, did: "records a step of", m: p.m}
	if r.status == none {
		*r = record{status: live, pay: p.m.pay}
	}
	switch {
	case r.pay != p.m.pay:
		a.why = "another payload"
	case r.steps[p.step] != recorded:
		if r.steps[p.step] = recorded; p.step == 0 {
			r.value = p.value
		}
	case c.FirstResult:
		p.value = r.value
	}
	p.looked = true
	c.goOn(&s, p)
	e(a, s)
}
