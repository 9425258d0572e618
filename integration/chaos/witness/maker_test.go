package witness

import (
	"fmt"
	"slices"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// maker writes evidence by hand, as a run would leave it: what it is told
// happens at its time, which goes on.
type maker struct {
	e   Evidence
	now time.Time
}

// noon is when every hand-made run begins.
func noon() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) }

func newMaker() *maker {
	return &maker{now: noon(), e: Evidence{Records: map[string]*mulligan.Record{}, UserRate: UserRate()}}
}

func (m *maker) after(d time.Duration) *maker {
	m.now = m.now.Add(d)
	return m
}

// publish has a key accepted; edit may change what is published.
func (m *maker) publish(kind, id string, edit func(p *Published)) {
	p := Published{N: len(m.e.Published), Kind: kind, ID: id, Payload: fingerprint([]byte(kind + id))}
	if edit != nil {
		edit(&p)
	}
	for _, p.What = range []string{Trying, Acked} {
		m.e.Published = append(m.e.Published, Said[Published]{m.now, p})
	}
	m.after(10 * time.Millisecond)
}

// call has the downstream see the next attempt of a key; it takes ten
// milliseconds.
func (m *maker) call(kind, id string, a Answer) *Call {
	c := Call{Began: m.now, Ended: m.now.Add(10 * time.Millisecond), Called: Called{Serial: len(m.e.Calls) + 1, Nth: 1, Path: kind, Kind: kind, ID: id,
		Key: keyOf(kind, id), Worker: "worker-1", Payload: fingerprint([]byte(kind + id)), Answer: a}}
	for _, had := range m.e.Calls {
		if had.Kind == kind && had.ID == id {
			c.Nth++
		}
	}
	c.Attempt = c.Nth
	c.Gone = a.Status == 0 && !a.Drop
	if a.Status == 200 {
		c.Receipt = "receipt 1 of " + c.Key
	}
	m.e.Calls = append(m.e.Calls, c)
	m.after(2 * time.Second)
	return &m.e.Calls[len(m.e.Calls)-1]
}

// record gives the key the record that its calls ask for.
func (m *maker) record(kind, id string, state mulligan.State) *mulligan.Record {
	r := &mulligan.Record{State: state, Payload: mulligan.Fingerprint(fingerprint([]byte(kind + id))[:32])}
	for _, c := range m.e.Calls {
		if c.Kind != kind || c.ID != id {
			continue
		}
		r.Attempts++
		a := mulligan.Attempt{Number: r.Attempts, At: c.Began, Took: c.Ended.Sub(c.Began), Throttled: c.throttled(), NotStarted: c.Answer.Outcome == notStarted}
		if c.Answer.Status != 200 {
			a.ErrorType, a.Verb = errorType(c.Answer), mulligan.Nak
		} else {
			r.Result = &mulligan.Result{Data: []byte(c.Receipt)}
		}
		r.History = append(r.History, a)
	}
	m.e.Records[mulligan.RecordKey(kind, mulligan.Token(id))] = r
	return r
}

// errorType is how a worker calls what it was answered.
func errorType(a Answer) string {
	switch {
	case a.Drop:
		return "reset"
	case a.Status == 0:
		return "timeout"
	}
	return fmt.Sprintf("http_%d", a.Status)
}

// bury gives the key its letter.
func (m *maker) bury(kind, id string, reason mulligan.Reason) *Letter {
	r := m.record(kind, id, mulligan.Dead)
	if n := len(r.History); n > 0 {
		r.History[n-1].Verb, r.History[n-1].Reason = mulligan.Spend, reason
	}
	l := Letter{Subject: "mulligan.dead." + kind + "." + id, Seq: uint64(len(m.e.Letters) + 1), Kind: kind, ID: id, Payload: fingerprint([]byte(kind + id)),
		Reason: reason, Attempts: r.Attempts, History: slices.Clone(r.History), BuriedAt: m.now}
	for _, p := range m.e.Published {
		if p.Line.Kind == kind && p.Line.ID == id {
			l.User, l.Task = p.Line.User, p.Line.Task
		}
	}
	m.e.Letters = append(m.e.Letters, l)
	return &m.e.Letters[len(m.e.Letters)-1]
}

// operate has an operator do something, and be told an answer.
func (m *maker) operate(what, kind, id string, reason mulligan.Reason) {
	o := Operated{N: len(m.e.Operated), What: what, Kind: kind, ID: id, Reason: reason}
	m.e.Operated = append(m.e.Operated, Said[Operated]{m.now, o})
	o.Answer = OperatorDone
	m.e.Operated = append(m.e.Operated, Said[Operated]{m.after(time.Second).now, o})
}

func (m *maker) fault(what, target string, at time.Time, took time.Duration) {
	m.e.Faults = append(m.e.Faults, Fault{At: at, For: took, What: what, Target: target})
}

// The answers of the hand-made runs.
func fine() Answer                 { return Answer{Class: good, Status: 200, Effect: true} }
func fails() Answer                { return Answer{Class: flaky, Status: 500} }
func vouched() Answer              { return Answer{Class: idle, Status: 503, Outcome: notStarted} }
func waits(d time.Duration) Answer { return Answer{Class: throttled, Status: 429, Hint: d} }

// clean is a small run with one key of every fate, and nothing wrong with it.
func clean() *maker {
	m := newMaker()
	m.publish("model.ask", "first", nil)
	m.call("model.ask", "first", fine())

	m.publish("pay.charge", "second", nil)
	m.call("pay.charge", "second", fails())
	m.call("pay.charge", "second", fine())
	m.record("pay.charge", "second", mulligan.Done)

	m.publish("mail.send", "hinted", nil)
	m.call("mail.send", "hinted", waits(1500*time.Millisecond))
	m.call("mail.send", "hinted", fine())
	m.record("mail.send", "hinted", mulligan.Done)

	m.publish("model.ask", "exhausted", func(p *Published) { p.User = "ada" })
	for range 4 {
		m.call("model.ask", "exhausted", fails())
	}
	m.bury("model.ask", "exhausted", mulligan.AttemptsExhausted)

	m.publish("pay.hook", "doubt", nil)
	m.call("pay.hook", "doubt", Answer{Class: drops, Drop: true, Effect: true})
	m.bury("pay.hook", "doubt", mulligan.InDoubt)

	m.publish("mail.send", "refused", nil)
	m.call("mail.send", "refused", Answer{Class: refused, Status: 400})
	m.bury("mail.send", "refused", mulligan.PermanentFailure)

	m.publish("mail.send", "late", func(p *Published) { p.Deadline = m.now.Add(3 * time.Second) })
	m.call("mail.send", "late", fails())
	late := &m.after(2*time.Second).bury("mail.send", "late", mulligan.Expired).History[0]
	late.Verb, late.Reason = mulligan.Park, "" // it was over when the retry was due

	m.publish("mail.send", "discarded", nil)
	m.call("mail.send", "discarded", Answer{Class: refused, Status: 400})
	m.record("mail.send", "discarded", mulligan.Dead)
	m.operate(Discard, "mail.send", "discarded", mulligan.PermanentFailure)

	m.publish("mail.report", "person", nil)
	m.call("mail.report", "person", Answer{Class: failsAfter, Status: 500, Effect: true})
	m.operate(ResolveNotDone, "mail.report", "person", mulligan.InDoubt)
	m.call("mail.report", "person", fine()).Attempt = 1
	m.record("mail.report", "person", mulligan.Done)

	m.publish("pay.charge", "clash", nil)
	m.call("pay.charge", "clash", fine())
	m.record("pay.charge", "clash", mulligan.Done)
	m.publish("pay.charge", "clash", func(p *Published) { p.Variant, p.Payload = 1, fingerprint([]byte("other")) })
	m.e.Letters = append(m.e.Letters, Letter{Subject: "mulligan.dead.pay.charge.clash.~1", Seq: 99, Kind: "pay.charge", ID: "clash",
		Payload: fingerprint([]byte("other")), Reason: mulligan.KeyConflict, BuriedAt: m.now})
	return m
}

// of returns the calls of a key.
func (m *maker) of(kind, id string) (calls []*Call) {
	for i := range m.e.Calls {
		if c := &m.e.Calls[i]; c.Kind == kind && c.ID == id {
			calls = append(calls, c)
		}
	}
	return calls
}

func (m *maker) letter(kind, id string) *Letter {
	i := slices.IndexFunc(m.e.Letters, func(l Letter) bool { return l.Kind == kind && l.ID == id })
	return &m.e.Letters[i]
}

func (m *maker) noLetter(kind, id string) {
	m.e.Letters = slices.DeleteFunc(m.e.Letters, func(l Letter) bool { return l.Kind == kind && l.ID == id })
}

func (m *maker) busy(jobs, retries int) *maker {
	for i := range jobs {
		id := fmt.Sprintf("busy-%d", i)
		m.publish("model.rank", id, nil)
		m.call("model.rank", id, fails())
		m.now = m.now.Add(-1990 * time.Millisecond) // all at once, one behind the other
		for range retries {
			m.call("model.rank", id, fails())
			m.now = m.now.Add(-1990 * time.Millisecond)
		}
		m.call("model.rank", id, fine())
		m.now = m.now.Add(-1990 * time.Millisecond)
		m.record("model.rank", id, mulligan.Done)
	}
	return m
}

// outage has the downstream see the first calls of so many keys, and refuse them.
func (m *maker) outage(calls int, every time.Duration) {
	for range calls {
		id := fmt.Sprintf("out-%d", len(m.e.Calls))
		m.publish("model.rank", id, nil)
		m.call("model.rank", id, Answer{Class: outage, Status: 503})
		m.now = m.now.Add(every - 2010*time.Millisecond)
	}
}
