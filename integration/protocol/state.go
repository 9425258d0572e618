package main

import "fmt"

// A kind says what running twice would do.
type kind int8

const (
	pure kind = iota
	keyed
	once
)

func (k kind) String() string { return [...]string{"pure", "keyed", "once"}[k] }

// A status is how far a key has come, as its record says.
type status int8

const (
	none status = iota // there is no record
	live
	parked
	spent
	dead
	done
)

func (s status) String() string {
	return [...]string{"none", "live", "parked", "spent", "dead", "done"}[s]
}

// An outcome is how a call ended, or why a key was spent.
type outcome int8

const (
	noOutcome  outcome = iota
	ok                 // the effect happened
	notStarted         // it certainly did not
	doubtful           // it did, but the handler does not know
	permanent
	crashed
	inDoubt
	exhausted
	conflict
	snoozed // no attempt was used
)

func (o outcome) String() string {
	return [...]string{"", "ok", "not started", "a failure after the effect", "permanent", "crashed", "in doubt", "attempts exhausted", "key conflict", "snoozed"}[o]
}

// Where a message comes from.
type from int8

const (
	published from = iota
	replayed
	retry  // a schedule, or back from one
	waiter // a schedule, because another message of the key had its turn
)

// A msg is a stored message. Addresses are unique over all streams; 0 is none.
type msg struct {
	addr   int8
	origin int8 // of a schedule or letter: what it is the successor of
	pay    int8 // which payload
	reason outcome
	from   from
	again  bool // was delivered before
	avail  bool // will be delivered
	bound  bool // a schedule that is not due before the retry it waits for
	// first: of a schedule and what comes back from it, that this is not for a retry:
	// it is delivered without a token of the downstream, as jobs are.
	first bool
}

func (m msg) String() string {
	t := fmt.Sprintf("m%d(%s", m.addr, payload(m.pay))
	if m.again {
		t += ", again"
	}
	if m.first {
		t += ", without a token"
	}
	return t + ")"
}

// isFirst: it is stored, and delivered without a token.
func (m *msg) isFirst() bool { return m != nil && m.first }

func payload(p int8) string { return string(rune('A' + p)) }

// A step's place in the record.
type step int8

const (
	notBegun step = iota
	begun
	recorded
)

const maxSteps = 2

// A record is what the ledger knows of the key.
type record struct {
	status   status
	pay      int8
	attempts int8
	starts   int8    // of redelivered messages since the last end
	reason   outcome // why it is spent or dead
	// mover is the message whose move was decided last; naks and waits say that it
	// was a nak and that it is not yet due.
	mover int8
	naks  bool
	waits bool
	// snoozed: the move was a deferral, so that what comes next is no retry.
	snoozed bool
	// starter is the message whose run has a start without an end (once).
	starter int8
	steps   [maxSteps]step
	value   int8 // the result of the first step
	// reopened: by a replay, so that a letter may be left.
	reopened bool
}

// retried: the next run is a retry.
func (r record) retried() bool { return r.attempts > 0 && !r.snoozed }

// untried: nothing was tried yet that failed.
func (r record) untried() bool {
	return (r.status == live || r.status == parked) && r.attempts == 0 && !r.reopened
}

// paid: a token was taken for the retry of m, when it was nak'd.
func (r record) paid(m msg) bool { return r.mover == m.addr && r.naks }

func (r record) ended() bool { return r.status == spent || r.status == dead }

// doubt says that nobody knows whether an effect happened.
func (r record) doubt() bool {
	return r.ended() && r.reason == inDoubt
}

func (r record) has(at step) bool { return r.steps[0] == at || r.steps[1] == at }

func (r record) String() string {
	if r.status == none {
		return "no record"
	}
	t := fmt.Sprintf("%v (%s, attempts %d", r.status, payload(r.pay), r.attempts)
	if r.ended() {
		t += fmt.Sprintf(", %v", r.reason)
	}
	if r.starts > 0 {
		t += fmt.Sprintf(", starts %d", r.starts)
	}
	if r.waits {
		t += fmt.Sprintf(", the retry of m%d not yet due", r.mover)
	}
	if r.starter != 0 {
		t += fmt.Sprintf(", started by m%d", r.starter)
	}
	if r.steps != [maxSteps]step{} {
		t += fmt.Sprintf(", steps %v", r.steps)
	}
	return t + ")"
}

// A pc is what a process does next.
type pc int8

const (
	idle pc = iota
	got     // a message, and will look at the record
	call
	stepBegin
	stepDo
	stepEnd
	recordDone
	recordFail
	doNak
	pubPark
	pubWait
	pubSpent
	pubSettle
	doAck
	pubLetter
	markDead
	reopen  // a plain replay
	notDone // a person says that the effect did not happen
	isDone  // a person says that it did
	pubJob
	delLetter
)

func (p pc) String() string {
	return [...]string{"idle", "looks", "runs it", "runs it", "", "", "records done", "spends it", "naks", "parks it", "lets it wait", "sends it to spent", "settles it", "acks",
		"writes the letter", "", "", "", "", "", ""}[p]
}

// A proc is a worker, a scheduler or a person at work on a message.
type proc struct {
	pc     pc
	out    outcome
	step   int8 // which it is in
	value  int8 // what the first step returned to it
	looked bool // found or wrote a record
	own    bool // the record's start is of this run
	first  bool // what it stores comes back for no retry
	m      msg
}

// Most messages of each sort; a state with more is not followed.
const (
	maxAt  = 3
	maxDue = 4
)

// A set of addresses.
type set uint64

func (b set) has(a int8) bool { return b&(1<<a) != 0 }
func (b *set) add(a int8)     { *b |= 1 << a }

// ids are the message ids that were stored, by the move and the address that
// they name. Each may be forgotten at any time.
type ids struct{ park, wait, spend, settle, letter, replay set }

// older is what a server still tells of the record that leads no more and has not
// noticed.
type older struct {
	tells  bool
	status status
	pay    int8
	reason outcome
}

// A State is one state of the whole.
type State struct {
	ids    ids
	jobs   msg // JOBS has one message per subject
	at     [maxAt]msg
	due    [maxDue]msg
	spent  [maxDue]msg
	letter msg
	rec    record

	workers    [2]proc
	schedulers [2]proc
	person     proc

	next                         int8    // the next address
	conflicts                    [2]bool // payloads with a letter of their own
	crash, slow, publish, replay int8    // mishaps and acts left
	snooze, stale                int8    // deferrals, and servers that stop leading, left
	old                          older
	succeeded                    [2]bool // payloads that ran with success
	accepted                     bool    // payload B was

	effects, forgiven [maxSteps]int8
	closed            bool // a person said that the effect had happened
	slack             int8 // runs left, if they are counted
	bad               bad
}

// A bad is a violation found within a step.
type bad int8

const (
	fine bad = iota
	badTwice
	badPayloads
	badRuns
	badEarly
	badAfter
	badSwallowed
	badBuried
	badToken
	badBehind
	badBounds
)

func (b bad) String() string {
	return [...]string{"", "I2: a second effect", "I2: two payloads went downstream under one key",
		"I3: more runs than the attempts of each life, and one for each crash, slowness and publish",
		"I5: a run begins before the retry is due", "I2: a step begins after a person said that the job is done",
		"I6: a replay is taken for an earlier one", "I6: a burial ends the life that a replay began",
		"I4: a retry runs without a token", "a first attempt waits for a token, behind retries", "note: more messages than the bounds (not followed)"}[b]
}

func (s *State) fresh() int8 { s.next++; return s.next - 1 }

// find returns the stored message of an address, if it can be delivered or held.
func (s *State) find(addr int8) *msg {
	if s.jobs.addr == addr {
		return &s.jobs
	}
	for i := range s.due {
		if s.due[i].addr == addr {
			return &s.due[i]
		}
		if s.spent[i].addr == addr {
			return &s.spent[i]
		}
	}
	return nil
}

// store puts m where there is room.
func (s *State) store(q []msg, m msg) {
	for i := range q {
		if q[i].addr == 0 {
			q[i] = m
			return
		}
	}
	s.bad = badBounds
}

// ack deletes p's message, which may be gone already, and ends p's work.
func (s *State) ack(p *proc) {
	if o := s.find(p.m.addr); o != nil {
		*o = msg{}
	}
	*p = proc{}
}

// release ends p's work without an answer: the message comes back, unless
// somebody else has it.
func (s *State) release(p *proc) {
	addr := p.m.addr
	*p = proc{}
	for _, q := range []*proc{&s.workers[0], &s.workers[1], &s.schedulers[0], &s.schedulers[1]} {
		if q.pc != idle && q.m.addr == addr {
			return
		}
	}
	if m := s.find(addr); m != nil {
		m.avail = true
	}
}

// write stores the record as r. A start that is no longer in it is nobody's.
func (s *State) write(r record) {
	if r.starter == 0 {
		s.workers[0].own, s.workers[1].own = false, false
	}
	if r.waits && !s.rec.waits || r.mover != s.rec.mover {
		for i := range s.at {
			s.at[i].bound = false // what they wait for has been decided anew
		}
	}
	s.rec = r
}

func (s *State) procs() [5]*proc {
	return [5]*proc{&s.workers[0], &s.workers[1], &s.schedulers[0], &s.schedulers[1], &s.person}
}
