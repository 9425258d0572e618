package main

import "fmt"

// A Model is what is explored: a kind, bounds and rules.
type Model struct {
	Kind       kind
	Steps      int  // the handler makes this many effects, each in a step; 0 is one effect without
	Attempts   int8 // of a life
	Starts     int8 // without an end, of redelivered messages
	Schedulers int
	Runs       bool // count them

	// What may happen at most this often.
	Crash, Slow, Publish, Replay, Snooze, Stale int8

	Rules
}

// An act is what happened in one step of one process.
type act struct {
	who  string
	did  string
	m    msg
	why  string
	made msg // what was stored
	// mishap: only a crash, slowness, a publisher or a person does this. What
	// waits for one is at rest.
	mishap bool
}

func (a act) String() string {
	t := a.who + " " + a.did
	if a.m.addr != 0 {
		t += fmt.Sprintf(" %v", a.m)
	}
	if a.why != "" {
		t += ": " + a.why
	}
	if a.made.addr != 0 {
		t += fmt.Sprintf(": %v", a.made)
	}
	return t
}

// An emit takes a successor of a state.
type emit func(a act, to State)

func (c *Model) initial() State {
	s := State{next: 2, crash: c.Crash, slow: c.Slow, publish: c.Publish, replay: c.Replay, snooze: c.Snooze, stale: c.Stale}
	s.jobs = msg{addr: 1, avail: true}
	c.allow(&s, c.Attempts)
	return s
}

// allow lets n more runs happen.
func (c *Model) allow(s *State, n int8) {
	if c.Runs {
		s.slack += n
	}
}

// next emits every successor of s. Each input or output is one step: what is
// read, decided and written by compare-and-set is one, since a conflict reads
// and decides again.
func (c *Model) next(s State, e emit) {
	c.publishes(s, e)
	c.passes(s, e)
	c.lags(s, e)
	for i := range s.workers {
		switch who := [...]string{"W1", "W2"}[i]; {
		case s.workers[i].pc != idle:
			c.worker(s, i, e)
			c.mishaps(s, who, func(n *State) *proc { return &n.workers[i] }, e)
		case i == 0 || s.workers[0].pc != idle: // idle workers are alike
			c.take(s, who, func(n *State, k int) (*proc, *msg) {
				if k == maxDue {
					return &n.workers[i], &n.jobs
				}
				return &n.workers[i], &n.due[k]
			}, e)
		}
	}
	for i := range s.schedulers[:c.Schedulers] {
		switch who := [...]string{"S1", "S2"}[i]; {
		case s.schedulers[i].pc != idle:
			c.scheduler(s, i, e)
			c.mishaps(s, who, func(n *State) *proc { return &n.schedulers[i] }, e)
		case i == 0 || s.schedulers[0].pc != idle:
			c.take(s, who, func(n *State, k int) (*proc, *msg) {
				return &n.schedulers[i], &n.spent[min(k, maxDue-1)]
			}, e)
		}
	}
	c.person(s, e)
}

// publishes: the same key again, with either payload. While its subject is taken
// the publisher is refused, which changes nothing.
func (c *Model) publishes(s State, e emit) {
	if s.publish == 0 || s.jobs.addr != 0 {
		return
	}
	for p := range int8(2) {
		n := s
		n.publish--
		n.jobs = msg{addr: n.fresh(), pay: p, avail: true}
		n.accepted = n.accepted || p == 1
		c.allow(&n, c.Attempts)
		e(act{who: "publisher", did: "stores", m: n.jobs, mishap: true}, n)
	}
}

// passes: time does. The retry of the record becomes due, and schedules fire,
// never early.
func (c *Model) passes(s State, e emit) {
	if s.rec.waits {
		n := s
		n.rec.waits = false
		e(act{who: "time", did: "passes", why: "the retry is due"}, n)
	}
	for i, m := range s.at {
		own := m.from == retry && m.origin == s.rec.mover && !s.rec.naks
		if m.addr == 0 || s.rec.waits && (own || m.bound) {
			continue
		}
		n := s
		n.at[i] = msg{}
		due := msg{addr: n.fresh(), pay: m.pay, from: retry, first: m.first, avail: true}
		if n.store(n.due[:], due); !m.first && s.rec.untried() {
			n.bad = badBehind
		}
		e(act{who: "time", did: "brings back, as due, the schedule of", m: msg{addr: m.origin, pay: m.pay}, made: due}, n)
	}
}

// lags: a server does not lead any more. Until it notices it tells of the record as
// it was; to store takes most servers, and those know.
func (c *Model) lags(s State, e emit) {
	switch {
	case s.old.tells:
		s.old = older{}
		e(act{who: "a server", did: "notices that it leads no more"}, s)
	case s.stale > 0:
		s.stale--
		s.old = older{true, s.rec.status, s.rec.pay, s.rec.reason}
		e(act{who: "a server", did: "leads no more and tells what it knew", mishap: true}, s)
	}
}

// take: the server delivers one of the messages that at names. A nak'd message
// may come back at any time: a nak's delay is not kept for certain.
func (c *Model) take(s State, who string, at func(n *State, k int) (*proc, *msg), e emit) {
	var before *msg
	for k := range maxDue + 1 {
		n := s
		p, m := at(&n, k)
		_, was := at(&s, k)
		if m.addr == 0 || !m.avail || was == before {
			continue
		}
		before = was
		*p = proc{pc: got, m: *m}
		p.m.avail = false
		m.avail, m.again = false, true
		e(act{who: who, did: "receives", m: p.m}, n)
	}
}

// mishaps: a crash, or a redelivery while the holder still runs.
func (c *Model) mishaps(s State, who string, at func(*State) *proc, e emit) {
	held := at(&s).m
	if s.crash > 0 {
		n := s
		n.crash--
		c.allow(&n, 1)
		n.release(at(&n))
		e(act{who: who, did: "crashes with", m: held, mishap: true}, n)
	}
	if m := s.find(held.addr); s.slow > 0 && m != nil && !m.avail {
		n := s
		n.slow--
		c.allow(&n, 1)
		n.find(held.addr).avail = true
		e(act{who: who, did: "is slow and will not be waited for with", m: held, mishap: true}, n)
	}
}
