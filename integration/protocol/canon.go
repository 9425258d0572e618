package main

import (
	"cmp"
	"slices"
)

// canon maps states that differ in names only to one: which of two equal
// processes is which, addresses, the order of a queue, and what is remembered
// but will never be used.
func (c *Model) canon(s State) State {
	s, _ = rename(c.tidy(s))
	return s
}

// tidy forgets what nobody will use.
func (c *Model) tidy(s State) State {
	for _, p := range s.procs() {
		*p = s.needed(*p)
	}
	r := &s.rec
	switch {
	case r.status == done && c.Kind == once && c.StepOwnsStart:
		*r = record{status: done, pay: r.pay}
	case r.ended():
		r.attempts, r.starts, r.mover, r.naks, r.waits, r.snoozed = 0, 0, 0, false, false, false
	case r.status == live && !r.waits && !s.find(r.mover).isFirst():
		r.mover, r.naks = 0, false
	}
	for i := range s.at {
		s.at[i].bound = s.at[i].bound && r.waits
	}
	if c.Kind != pure {
		s.succeeded = [2]bool{}
	}
	return s
}

// needed is what p will use of what it has.
func (s *State) needed(p proc) proc {
	some := msg{addr: p.m.addr, pay: p.m.pay}
	switch p.pc {
	case idle:
		return proc{}
	case doAck, doNak:
		if s.find(p.m.addr) == nil {
			return proc{}
		}
		return proc{pc: p.pc, m: msg{addr: p.m.addr}}
	case got:
		return proc{pc: p.pc, m: p.m}
	case call:
		return proc{pc: p.pc, looked: p.looked, own: p.own, m: some}
	case pubPark, pubWait:
		return proc{pc: p.pc, m: some, first: p.first}
	case recordDone, pubSettle, reopen, notDone, isDone, delLetter:
		return proc{pc: p.pc, m: some}
	case recordFail:
		return proc{pc: p.pc, out: p.out, own: p.own, m: some}
	case pubLetter, markDead:
		some.reason = p.m.reason
		return proc{pc: p.pc, m: some}
	case pubSpent:
		return proc{pc: p.pc, out: p.out, m: some}
	}
	p.m = some
	return p
}

// queues are where order has no meaning.
func (s *State) queues() [3][]msg { return [3][]msg{s.at[:], s.due[:], s.spent[:]} }

// rename gives addresses anew, in the order in which they are found.
func rename(s State) (State, names) {
	n := names{next: 1}
	if compareProcs(s.workers[0], s.workers[1]) < 0 {
		n.workers = true
		s.workers[0], s.workers[1] = s.workers[1], s.workers[0]
	}
	if compareProcs(s.schedulers[0], s.schedulers[1]) < 0 {
		n.schedulers = true
		s.schedulers[0], s.schedulers[1] = s.schedulers[1], s.schedulers[0]
	}
	n.give(&s.jobs.addr)
	for _, q := range s.queues() {
		slices.SortFunc(q, compareMsgs)
		for i := range q {
			n.give(&q[i].addr)
		}
	}
	n.give(&s.letter.addr)
	for _, p := range s.procs() {
		n.give(&p.m.addr)
	}
	r := &s.rec
	if r.waits { // the schedule that it waits for has this origin
		n.give(&r.mover)
	} else {
		r.mover = n.to[r.mover]
	}
	if r.starter != 0 && n.to[r.starter] == 0 {
		r.starter = nobody
	} else {
		r.starter = n.to[r.starter]
	}
	for i := range s.at {
		s.at[i].origin = n.to[s.at[i].origin]
	}
	s.letter.origin = n.to[s.letter.origin]
	s.next = n.next
	for _, b := range []*set{&s.ids.park, &s.ids.wait, &s.ids.spend, &s.ids.settle, &s.ids.letter, &s.ids.replay} {
		*b = n.rename(*b)
	}
	return s, n
}

// nobody is the name of a message that is gone and had a start.
const nobody = 63

// names are the new names of addresses; 0 is none.
type names struct {
	to                  [64]int8
	next                int8
	workers, schedulers bool // changed places
}

func (n *names) give(a *int8) {
	if *a == 0 {
		return
	}
	if n.to[*a] == 0 {
		n.to[*a] = n.next
		n.next++
	}
	*a = n.to[*a]
}

// rename forgets the ids of messages that are gone: nobody can publish them
// again.
func (n *names) rename(b set) (renamed set) {
	for a := int8(1); b>>a != 0; a++ {
		if b.has(a) && n.to[a] != 0 {
			renamed.add(n.to[a])
		}
	}
	return renamed
}

// compareMsgs orders messages by what they are, and then by age; none is last.
func compareMsgs(a, b msg) int {
	if a.addr == 0 || b.addr == 0 {
		return cmp.Compare(b.addr, a.addr)
	}
	return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.addr, b.addr))
}

func compareProcs(a, b proc) int {
	return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.m.rank(), b.m.rank()), cmp.Compare(a.m.addr, b.m.addr))
}

// rank is all of m but its names.
func (m msg) rank() int {
	return pack(int(m.pay), int(m.reason), int(m.from), bit(m.again), bit(m.avail), bit(m.bound), bit(m.first))
}

func (p proc) rank() int {
	return pack(int(p.pc), int(p.out), int(p.step), int(p.value), bit(p.looked), bit(p.own), bit(p.first))
}

// pack makes one number of several that are below sixteen.
func pack(digits ...int) (n int) {
	for _, d := range digits {
		n = n*16 + d
	}
	return n
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
