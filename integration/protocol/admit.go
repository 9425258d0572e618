package main

// A decision is what becomes of a message.
type decision struct {
	then pc
	out  outcome // the reason, when it is spent
	why  string
	// started: the record has the start of this run now.
	started bool
}

// admit decides about a message before it runs, and notes in the record what
// must be known later. late says that the message is past its deadline: only a
// message that waits for another's end is tried both ways.
func (c *Model) admit(r *record, m msg, late bool) decision {
	mine := r.mover == m.addr
	switch {
	case r.status == done && (r.pay == m.pay || !c.DonePayload):
		return decision{then: doAck, why: "done"}
	case r.status != none && r.pay != m.pay:
		return decision{then: pubSpent, out: conflict, why: "another payload"}
	case mine && r.status == parked:
		return decision{then: pubPark, why: "finishes the move"}
	case mine && r.naks && r.waits && c.NakAgain:
		return decision{then: doNak, why: "before its time"}
	case r.status == dead && c.Kind == pure && !c.OnlyReplay:
		*r = record{}
	case r.status == dead, r.status == spent && c.SpentIsEnd:
		return c.follow(r)
	}
	switch {
	case r.starter != 0:
		return c.meet(r, m, late)
	case r.attempts >= c.Attempts:
		return c.spend(r, m, exhausted)
	case c.SecondWaits && !mine && r.waits && !c.exempt(m):
		return decision{then: pubWait, why: "another's retry is not yet due"}
	case c.RetryNeedsToken && m.first && r.retried() && !r.paid(m):
		return decision{then: pubWait, why: "it is a retry by now, and has no token"}
	case m.again && r.starts >= c.Starts:
		return c.spend(r, m, crashed)
	}
	return c.begin(r, m)
}

// follow: the key has ended, and the message follows it to the letters.
func (c *Model) follow(r *record) decision {
	if !c.RecordReason {
		return decision{then: pubSpent, out: exhausted, why: "ended"}
	}
	return decision{then: pubSpent, out: r.reason, why: "ended"}
}

// exempt: a message from RETRIES is due by the server's clock, which a worker's
// may be behind. It is due itself, and that is all: the retry that the record
// speaks of may be due later. So it is exempt if it was to come back no earlier
// than that retry; here, where clocks agree, that is when nothing waits.
func (c *Model) exempt(m msg) bool {
	return !c.ExemptByDue && m.from == retry && !m.again
}

// meet decides about a message that finds a start without an end.
func (c *Model) meet(r *record, m msg, late bool) decision {
	resumes := r.has(recorded) && !r.has(begun)
	if !c.ResumeNeedsStep {
		resumes = !r.has(begun)
	}
	if !c.OpenDoubts {
		resumes = r.has(recorded)
	}
	switch own := r.starter == m.addr; {
	case own && resumes && r.starts >= c.Starts:
		return c.spend(r, m, crashed)
	case own && resumes:
		r.starts++
		return decision{then: c.first(), why: "goes on after the steps recorded", started: true}
	case own && c.StartDoubts:
		return c.spend(r, m, inDoubt)
	case !own && late:
		return c.spend(r, m, inDoubt)
	case !own && c.StartWaits:
		return decision{then: pubWait, why: "another has started"}
	}
	return c.begin(r, m)
}

func (c *Model) begin(r *record, m msg) decision {
	if c.Kind == once && c.Start {
		if r.status == none {
			r.pay = m.pay
		}
		r.status, r.starter = live, m.addr
		return decision{then: c.first(), why: "begins", started: true}
	}
	if m.again && c.Kind != once {
		r.starts++
		if r.status == none {
			r.status, r.pay = live, m.pay
		}
	}
	return decision{then: c.first(), why: "begins"}
}

// first is what a run does first.
func (c *Model) first() pc {
	if c.Steps > 0 {
		return stepBegin
	}
	return call
}

// spend ends the key. A doubt keeps the start that it is about, for the run
// that may still end.
func (c *Model) spend(r *record, m msg, why outcome) decision {
	if r.status == none {
		r.pay = m.pay
	}
	if why != inDoubt {
		r.starter = 0
	}
	r.status, r.reason, r.mover, r.naks, r.waits = spent, why, m.addr, false, false
	return decision{then: pubSpent, out: why, why: why.String()}
}

// fail notes a failed run, over whatever the record says by now, and decides.
// long says that the delay is too long for a nak.
func (c *Model) fail(r *record, p proc, long bool) decision {
	switch {
	case r.status == done && (r.pay == p.m.pay || !c.DonePayload):
		return decision{then: doAck, why: "done by now"}
	case r.status != none && r.pay != p.m.pay:
		return decision{then: pubSpent, out: conflict, why: "another payload"}
	case r.status == dead && c.Kind == pure && !c.OnlyReplay, r.status == none:
		*r = record{status: live, pay: p.m.pay}
	}
	if p.out != snoozed {
		r.attempts = min(r.attempts+1, c.Attempts)
	}
	c.end(r, p)
	switch {
	case c.LateFollows && r.starter != 0:
		return decision{then: doNak, why: "another has started"}
	case c.LateFollows && r.ended():
		return c.follow(r)
	case p.out == permanent:
		return c.spend(r, p.m, permanent)
	case p.out == doubtful:
		return c.spend(r, p.m, inDoubt)
	case p.out != snoozed && r.attempts >= c.Attempts:
		return c.spend(r, p.m, exhausted)
	}
	r.mover, r.waits, r.snoozed = p.m.addr, true, p.out == snoozed
	if long || r.snoozed {
		r.status, r.naks = parked, false
		return decision{then: pubPark, why: "retry later"}
	}
	r.status, r.naks = live, true
	return decision{then: doNak, why: "retry soon"}
}

// end clears the start of a run that has ended, and the begin of the step it
// was in if that certainly had no effect.
func (c *Model) end(r *record, p proc) {
	if c.Kind == once && c.StartIsOwn && !p.own {
		return
	}
	r.starts, r.starter = 0, 0
	for k := range r.steps {
		if r.steps[k] == begun && p.out != doubtful {
			r.steps[k] = notBegun
		}
	}
}

// succeed notes a success, which overrides every other end.
func (c *Model) succeed(r *record, m msg) decision {
	if r.status != none && r.pay != m.pay {
		return decision{then: doAck, why: "another payload"}
	}
	letter := r.status == dead && c.Settle || r.reopened && c.SettleReopened
	*r = c.finished(*r, m.pay)
	if letter {
		return decision{then: pubSettle, why: "a letter exists"}
	}
	return decision{then: doAck}
}

// finished is the record of a job that is done.
func (c *Model) finished(r record, pay int8) record {
	d := record{status: done, pay: pay}
	if c.DoneKeepsSteps {
		d.steps, d.value = r.steps, r.value
	}
	return d
}
