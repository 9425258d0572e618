package witness

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func TestACleanRunHasNoViolation(t *testing.T) {
	m := clean()
	r := Check(m.e)
	if len(r.Violations) > 0 {
		t.Errorf("got %q, want none", r.Violations)
	}
	if r.Tried != 10 || r.Acked != 10 || r.Calls != 16 || r.Retries != 5 || r.Done != 4 || r.Recovered != 3 || r.Finished != 1 ||
		r.Discarded != 1 || r.Resolved != 1 || r.Hints != 1 || len(r.Dead) != 5 || r.Effects != 6 {
		t.Errorf("the figures are %+v", r)
	}
	if text := r.String(); !strings.Contains(text, "no violation") || !strings.Contains(text, "key_conflict=1") {
		t.Errorf("the report reads %s", text)
	}
}

// A broken run is the clean one with something wrong about it.
type brokenRun struct {
	name  string
	spoil func(m *maker)
	want  string // begins the violation
}

func TestEveryViolationIsFound(t *testing.T) {
	for _, runs := range [][]brokenRun{lostKeys(), repeatedEffects(), tooManyCalls(), wrongLetters()} {
		for _, tt := range runs {
			t.Run(tt.name, func(t *testing.T) {
				m := clean()
				tt.spoil(m)
				found := Check(m.e).Violations
				for _, v := range found {
					if strings.HasPrefix(v, tt.want+":") {
						return
					}
				}
				t.Errorf("got %q, want one that begins with %s", found, tt.want)
			})
		}
	}
}

func lostKeys() []brokenRun {
	return []brokenRun{
		{"a key without a trace is lost", func(m *maker) { m.publish("mail.send", "lost", nil) }, "I1 mail.send.lost"},
		{"a pure job that was called and failed is lost", func(m *maker) {
			m.of("model.ask", "first")[0].Answer = fails()
		}, "I1 model.ask.first"},
		{"a good answer that came too late is none", func(m *maker) { m.of("model.ask", "first")[0].Gone = true }, "I1 model.ask.first"},
		{"a letter that nobody discarded must be there", func(m *maker) { m.noLetter("mail.send", "refused") }, "I1 mail.send.refused"},
		{"a refused discard discards nothing", func(m *maker) {
			m.e.Operated[1].Line.Answer = OperatorFailed
		}, "I1 mail.send.discarded"},
		{"done and dead are one too many", func(m *maker) {
			m.bury("pay.charge", "second", mulligan.AttemptsExhausted).Kind = "pay.charge"
			m.record("pay.charge", "second", mulligan.Done)
		}, "I1 pay.charge.second"},
		{"done needs a receipt that the downstream gave", func(m *maker) {
			m.e.Records["pay.charge.second"].Result.Data = []byte("receipt 1 of nobody")
		}, "I1 pay.charge.second"},
		{"done with another payload is not done", func(m *maker) {
			m.e.Records["mail.send.hinted"].Payload = mulligan.FingerprintOf([]byte("x"))
		}, "I1 mail.send.hinted"},
		{"a record that lives although nothing is left", func(m *maker) { m.e.Records["mail.send.hinted"].State = mulligan.Parked }, "I1 mail.send.hinted"},
		{"a letter whose key has no record", func(m *maker) { delete(m.e.Records, "mail.send.refused") }, "I1 mail.send.refused"},
		{"the payload of a conflict is lost", func(m *maker) { m.noLetter("pay.charge", "clash") }, "I1 pay.charge.clash"},
		{"something is left in the streams", func(m *maker) { m.e.Left = "MULLIGAN_JOBS has 1 messages" }, "I1 the streams"},
		{"a key that nobody published", func(m *maker) { m.call("mail.send", "ghost", fine()) }, "I1 mail.send.ghost"},
	}
}

func repeatedEffects() []brokenRun {
	return []brokenRun{
		{"a keyed effect happens twice", func(m *maker) {
			m.of("pay.charge", "second")[0].Answer = Answer{Class: drops, Drop: true, Effect: true}
		}, "I2 pay.charge.second"},
		{"a once effect happens twice without a person's word", func(m *maker) { m.e.Operated = m.e.Operated[:2] }, "I2 mail.report.person"},
		{"the idempotency key changes", func(m *maker) { m.of("pay.charge", "second")[1].Key += "-2" }, "I2 pay.charge.second"},
		{"the payload changes by a bit", func(m *maker) { m.of("mail.send", "hinted")[1].Payload = fingerprint([]byte("bit")) }, "I2 mail.send.hinted"},
		{"a key gets two payloads, both published", func(m *maker) {
			m.call("pay.charge", "clash", Answer{Class: knownKey, Status: 200}).Payload = fingerprint([]byte("other"))
		}, "I2 pay.charge.clash"},
		{"a done key is called again", func(m *maker) { m.call("mail.send", "hinted", Answer{Class: knownKey, Status: 200}) }, "I2 mail.send.hinted"},
	}
}

func tooManyCalls() []brokenRun {
	return []brokenRun{
		{"one call more than attempts", func(m *maker) { m.call("model.ask", "exhausted", fails()).Attempt = 4 }, "I3 model.ask.exhausted"},
		{"an attempt over the policy's", func(m *maker) { m.of("model.ask", "exhausted")[3].Attempt = 5 }, "I3 model.ask.exhausted"},
		{"attempts begin again without a replay", func(m *maker) { m.of("pay.charge", "second")[1].Attempt = 1 }, "I3 pay.charge.second"},
		{"a call behind the deadline", func(m *maker) { m.call("mail.send", "late", fails()) }, "I3 mail.send.late"},
		{"calls that took longer than the total", func(m *maker) {
			c := m.of("mail.send", "hinted")[1]
			c.Ended = c.Began.Add(13 * time.Second)
		}, "I3 mail.send.hinted"},
		{"more failed retries than anything allows", func(m *maker) { m.busy(10, 3) }, "I4 downstream model"},
		{"a task has a sixth retry", func(m *maker) {
			for _, id := range []string{"t1", "t2"} {
				m.publish("model.ask", id, func(p *Published) { p.Task = "errand" })
				for range 4 {
					m.call("model.ask", id, fails())
				}
				m.bury("model.ask", id, mulligan.AttemptsExhausted)
			}
		}, "I4 task errand"},
		{"a refused message pays for no attempt", func(m *maker) {
			m.of("pay.charge", "second")[1].Attempt = 1
			m.publish("pay.charge", "second", nil)
			m.e.Published[len(m.e.Published)-1].Line.What = Refused
		}, "I3 pay.charge.second"},
		{"an outage is called on and on", func(m *maker) { m.outage(100, 50*time.Millisecond) }, "I4 downstream model"},
		{"a user has more retries than the rate", func(m *maker) {
			m.busy(30, 0)
			for i := range m.e.Published {
				m.e.Published[i].Line.User = "ada"
			}
		}, "I8 user ada"},
		{"a call before its time", func(m *maker) {
			for i := range m.e.Published {
				m.e.Published[i].Line.NotBefore = m.of("model.ask", "first")[0].Began.Add(time.Second)
			}
		}, "I5 model.ask.first"},
		{"a retry before its hint", func(m *maker) {
			c := m.of("mail.send", "hinted")
			c[1].Began = c[0].Ended.Add(1400 * time.Millisecond)
		}, "I5 mail.send.hinted"},
	}
}

func wrongLetters() []brokenRun {
	reason := func(kind, id string, r mulligan.Reason) func(m *maker) {
		return func(m *maker) { m.letter(kind, id).Reason = r }
	}
	return []brokenRun{
		{"permanent, and nobody refused it", reason("model.ask", "exhausted", mulligan.PermanentFailure), "I6 model.ask.exhausted"},
		{"in doubt, and it is pure", reason("model.ask", "exhausted", mulligan.InDoubt), "I6 model.ask.exhausted"},
		{"in doubt, and the downstream vouched for it", func(m *maker) {
			m.of("pay.hook", "doubt")[0].Answer = vouched()
		}, "I6 pay.hook.doubt"},
		{"crashed, and no worker ended", reason("pay.hook", "doubt", mulligan.Crashed), "I6 pay.hook.doubt"},
		{"attempts exhausted after one", reason("mail.send", "refused", mulligan.AttemptsExhausted), "I6 mail.send.refused"},
		{"time exhausted in no time", reason("mail.send", "refused", mulligan.TimeExhausted), "I6 mail.send.refused"},
		{"expired long before its deadline", func(m *maker) {
			for i := range m.e.Published {
				if p := &m.e.Published[i].Line; p.ID == "late" {
					p.Deadline = p.Deadline.Add(time.Hour)
				}
			}
		}, "I6 mail.send.late"},
		{"expired without a deadline", reason("mail.send", "refused", mulligan.Expired), "I6 mail.send.refused"},
		{"a conflict, and nobody conflicted", reason("mail.send", "refused", mulligan.KeyConflict), "I6 mail.send.refused"},
		{"a task's budget without a task", reason("mail.send", "refused", mulligan.TaskBudget), "I6 mail.send.refused"},
		{"a user's budget without a user", reason("mail.send", "refused", mulligan.UserBudget), "I6 mail.send.refused"},
		{"malformed, and every job is well formed", reason("mail.send", "refused", mulligan.Malformed), "I6 mail.send.refused"},
		{"a letter with another payload", func(m *maker) { m.letter("mail.send", "refused").Payload = fingerprint([]byte("x")) }, "I6 mail.send.refused"},
		{"a letter without its user", func(m *maker) { m.letter("model.ask", "exhausted").User = "" }, "I6 model.ask.exhausted"},
		{"a letter without a history", func(m *maker) { m.letter("model.ask", "exhausted").History = nil }, "I6 model.ask.exhausted"},
		{"a letter that cannot be read", func(m *maker) { m.e.Unreadable = []string{"letter 7"} }, "I6 the streams"},
		{"a failed call that the record does not know", func(m *maker) {
			r := m.e.Records["pay.charge.second"]
			r.History = r.History[1:]
		}, "I7 pay.charge.second"},
		{"a retry without a reason", func(m *maker) { m.e.Records["pay.charge.second"].History[0].ErrorType = "" }, "I7 pay.charge.second"},
	}
}

// What faults excuse, and what the same faults elsewhere do not.
func TestFaultsExcuseOnlyWhatTheyCanHaveCaused(t *testing.T) {
	again := func(m *maker) *Call { // a call whose worker was killed before it recorded the failure
		c := m.of("pay.charge", "second")
		c[1].Attempt = 1
		r := m.e.Records["pay.charge.second"]
		r.History = r.History[1:]
		return c[0]
	}
	early := func(m *maker) *Call {
		c := m.of("mail.send", "hinted")
		c[1].Began = c[0].Ended.Add(500 * time.Millisecond)
		return c[0]
	}
	missed := func(m *maker) *Call { // an attempt that never arrived
		c, r := m.of("pay.charge", "second"), m.e.Records["pay.charge.second"]
		c[1].Attempt = 3
		r.History = slices.Insert(r.History, 1, mulligan.Attempt{Number: 2, At: c[0].Ended.Add(100 * time.Millisecond), Took: time.Second, ErrorType: "timeout", Verb: mulligan.Nak})
		r.History[2].Number = 3
		return c[0]
	}
	overBudget := func(m *maker) *Call {
		m.busy(10, 3)
		return m.of("model.rank", "busy-0")[0]
	}
	for _, tt := range []struct {
		name   string
		spoil  func(m *maker) *Call
		what   string
		target string
		took   time.Duration
		clean  bool
	}{
		{"a kill of its worker", again, "kill -9", "worker-1", time.Second, true},
		{"a kill of another worker", again, "kill -9", "worker-12", time.Second, false},
		{"a kill of all workers", again, "kill -9", "workers", time.Second, true},
		{"a partition between servers", again, "partition", "nats-1 from nats-2", time.Second, true},
		{"a consumer deleted", again, "recreated", "MULLIGAN_JOBS pay", 0, true},
		{"a kill of a publisher", again, "kill -9", "publisher-1", time.Second, false},
		{"a kill of the downstream", again, "kill -9", "downstream", time.Second, false},
		{"a kill of a scheduler", again, "kill -9", "scheduler-1", time.Second, false},
		{"a skew is no kill", again, "skew", "worker-1", time.Second, false},
		{"a clock that is behind", early, "skew", "worker-1", -time.Second, false},
		{"a way to the downstream that is cut", again, "cut", "worker-1 to downstream", time.Second, false},
		{"a consumer created again while a pure job waited in hand", func(m *maker) *Call {
			m.publish("model.rank", "held", nil)
			m.e.Faults = append(m.e.Faults, Fault{At: m.now, What: "recreate", Target: "consumer 1"})
			m.after(15*time.Second).call("model.rank", "held", fails())
			m.call("model.rank", "held", fine()).Attempt = 1
			m.record("model.rank", "held", mulligan.Done)
			return m.of("model.rank", "held")[0]
		}, "kill -9", "publisher-1", time.Second, true},
		{"attempts that the downstream missed", missed, "cut", "worker-1 to downstream", time.Second, true},
		{"attempts that another worker made in vain", missed, "cut", "worker-2 to downstream", time.Second, true},
		{"attempts that no fault kept from the downstream", missed, "kill -9", "publisher-1", time.Second, false},
		{"a good answer that was not heard does not hide the next", func(m *maker) *Call {
			first := m.of("mail.send", "hinted")[1]
			m.call("mail.send", "hinted", Answer{Class: knownKey, Status: 200})
			m.after(20*time.Second).call("mail.send", "hinted", Answer{Class: knownKey, Status: 200})
			return first
		}, "kill -9", "worker-1", time.Second, false},
		{"a kill does not pay for retries of a worker that lives", overBudget, "kill -9", "publisher-2", time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := clean()
			c := tt.spoil(m)
			m.fault(tt.what, tt.target, c.Ended.Add(time.Millisecond), tt.took)
			if found := Check(m.e).Violations; (len(found) == 0) != tt.clean {
				t.Errorf("got %q, want clean = %v", found, tt.clean)
			}
		})
	}
}

// One may be; that all are is a checker that is blind, or a fault that nobody drew.
func TestNotAllReasonsMayBeExcused(t *testing.T) {
	for letters, clean := range map[int]bool{fewExcused: true, fewExcused + 1: false} {
		m := newMaker()
		for i := range letters {
			id := fmt.Sprint(i)
			m.publish("pay.hook", id, nil)
			m.call("pay.hook", id, fails())
			l := m.bury("pay.hook", id, mulligan.InDoubt)
			l.History[0].ErrorType = "timeout"
			m.e.Records["pay.hook."+id].History = l.History
		}
		m.e.Calls = nil
		m.fault("cut", "worker-1 to downstream", noon(), m.now.Sub(noon()))
		if found := Check(m.e).Violations; (len(found) == 0) != clean {
			t.Errorf("of %d excused letters: got %q, want clean = %v", letters, found, clean)
		}
	}
}

// A worker that goes on after its job was spent for having no end says how it ended:
// in the history that stands in the place of the doubt.
func TestADoubtOfWhichItsWorkerTellsLater(t *testing.T) {
	for frozen, clean := range map[bool]bool{true: true, false: false} {
		m := newMaker()
		m.publish("pay.hook", "a", nil)
		c := m.call("pay.hook", "a", fine())
		l := m.bury("pay.hook", "a", mulligan.InDoubt)
		l.History[0].ErrorType, l.History[0].Reason, l.History[0].Took = "timeout", "", 34*time.Second
		m.e.Records["pay.hook.a"].History = l.History
		if frozen {
			m.fault("freeze", "worker-1", c.Began, 33*time.Second)
		}
		if found := Check(m.e).Violations; (len(found) == 0) != clean {
			t.Errorf("frozen %v: got %q, want clean = %v", frozen, found, clean)
		}
	}
}

// Both calls arrive when the downstream goes on, and both are answered then: the
// first to nobody.
func TestCallsThatADownstreamTakesLateAreThoseOfTheirAttempts(t *testing.T) {
	m := newMaker()
	m.publish("pay.charge", "a", nil)
	began := m.now
	m.fault("freeze", "downstream", began, 4*time.Second)
	m.now = began.Add(4 * time.Second)
	first := m.call("pay.charge", "a", vouched())
	second := m.call("pay.charge", "a", vouched())
	second.Began, second.Ended = first.Began.Add(100*time.Millisecond), first.Ended.Add(100*time.Millisecond)
	m.call("pay.charge", "a", fine())
	r := m.record("pay.charge", "a", mulligan.Done)
	r.History[0].At, r.History[0].Took, r.History[0].ErrorType, r.History[0].NotStarted = began, 2*time.Second, "timeout", false
	r.History[1].At, r.History[1].Took = began.Add(2500*time.Millisecond), second.Ended.Sub(began)-2500*time.Millisecond
	for _, v := range Check(m.e).Violations {
		t.Error(v)
	}
}

// A worker cannot record its failure for as long as the cluster is cut; meanwhile
// another has the job, fails, and then succeeds.
func TestAFailureThatIsRecordedTooLateNeedNotStand(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cut    bool
		second int // the number of the attempt that succeeded
		clean  bool
	}{
		{"it knew of one failure of two", true, 2, true},
		{"and nothing kept the other from being recorded", false, 2, false},
		{"it knew of both", true, 3, false},
	} {
		m := newMaker()
		m.publish("model.ask", "a", nil)
		if tt.cut {
			m.fault("cut", "nats1 nats2", m.now, 5*time.Second)
		}
		m.call("model.ask", "a", vouched())
		m.call("model.ask", "a", vouched()).Attempt = 1
		m.call("model.ask", "a", fine()).Attempt = tt.second
		r := m.record("model.ask", "a", mulligan.Done)
		r.History = r.History[1:]
		stands := slices.DeleteFunc(Check(m.e).Violations, func(v string) bool { return !strings.Contains(v, "each failed call") })
		if (len(stands) == 0) != tt.clean {
			t.Errorf("%s: got %q, want clean = %v", tt.name, stands, tt.clean)
		}
	}
}

// Two hands have it, each for the first time, and the record comes between.
func TestAPureJobBeginsOnceMoreForAFaultOfTheServers(t *testing.T) {
	for _, tt := range []struct {
		name     string
		kind     string
		attempts []int
		faults   int
		clean    bool
	}{
		{"as it goes", "model.ask", []int{1, 2, 3, 4}, 0, true},
		{"once more, for no reason", "model.ask", []int{1, 2, 1, 4}, 0, false},
		{"once more", "model.ask", []int{1, 2, 1, 4}, 1, true},
		{"once more, and its effect is not repeatable", "pay.charge", []int{1, 2, 1, 4}, 1, false},
		{"twice more", "model.ask", []int{1, 1, 2, 1}, 1, false},
	} {
		m := newMaker()
		m.publish(tt.kind, "a", nil)
		for range tt.faults {
			m.fault("step down", "stream MULLIGAN_JOBS", m.now, 0)
		}
		m.now = m.now.Add(time.Minute) // held by a breaker
		for i := range tt.attempts {
			answer := fails()
			if i == len(tt.attempts)-1 {
				answer = fine()
			}
			m.call(tt.kind, "a", answer).Attempt = tt.attempts[i]
		}
		m.record(tt.kind, "a", mulligan.Done)
		numbers := slices.DeleteFunc(Check(m.e).Violations, func(v string) bool { return !strings.HasPrefix(v, "I3 ") })
		if (len(numbers) == 0) != tt.clean {
			t.Errorf("%s: got %q, want clean = %v", tt.name, numbers, tt.clean)
		}
	}
}

// A worker is frozen as it sends, and its way is cut when it goes on.
func TestACallMayArriveAfterItsDeadline(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cut   time.Duration // after the publish; zero is none
		clean bool
	}{
		{"a freeze, and a cut before it is over", 33 * time.Second, true},
		{"a freeze, and a cut long after it", 50 * time.Second, false},
		{"a freeze alone", 0, false},
	} {
		m := newMaker()
		began := m.now
		m.publish("pay.charge", "a", func(p *Published) { p.Deadline = began.Add(30 * time.Second) })
		m.fault("freeze", "worker-1", began, 34*time.Second)
		if tt.cut > 0 {
			m.fault("cut one way", "worker-1 to downstream", began.Add(tt.cut), 20*time.Second)
		}
		m.now = began.Add(52 * time.Second)
		m.call("pay.charge", "a", fine())
		m.record("pay.charge", "a", mulligan.Done)
		late := slices.DeleteFunc(Check(m.e).Violations, func(v string) bool { return !strings.Contains(v, "after the deadline") })
		if (len(late) == 0) != tt.clean {
			t.Errorf("%s: got %q, want clean = %v", tt.name, late, tt.clean)
		}
	}
}

// What was sent before the answer may arrive behind it.
func TestACallThatWasSentBeforeTheHintIsNotTooEarly(t *testing.T) {
	for cut, clean := range map[bool]bool{true: true, false: false} {
		m := newMaker()
		m.publish("pay.charge", "a", nil)
		began := m.now
		if cut {
			m.fault("cut", "worker-1 to downstream", began, 4*time.Second)
		}
		m.now = began.Add(3 * time.Second)
		second := m.call("pay.charge", "a", waits(2*time.Second))
		second.Attempt, second.Worker = 2, "worker-2"
		m.now = began.Add(4100 * time.Millisecond)
		first := m.call("pay.charge", "a", fine())
		first.Attempt, first.Gone = 1, true
		m.now = began.Add(6 * time.Second)
		m.call("pay.charge", "a", fine()).Attempt = 3
		m.record("pay.charge", "a", mulligan.Done)
		hints := slices.DeleteFunc(Check(m.e).Violations, func(v string) bool { return !strings.HasPrefix(v, "I5 ") })
		if (len(hints) == 0) != clean {
			t.Errorf("cut %v: got %q, want clean = %v", cut, hints, clean)
		}
	}
}

// A breaker that opens, and probes, is what there should be.
func TestAnOutageMayBeProbed(t *testing.T) {
	m := newMaker()
	m.outage(breakerCalls, 20*time.Millisecond)
	for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		m.after(wait).outage(1, 0)
	}
	for _, v := range Check(m.e).Violations {
		if strings.HasPrefix(v, "I4 ") {
			t.Error(v)
		}
	}
}

func TestAFaultLongAgoExcusesNothing(t *testing.T) {
	m := clean()
	c := m.of("pay.charge", "second")
	c[1].Attempt = 1
	m.fault("kill -9", "worker-1", c[0].Began.Add(-time.Minute), time.Second)
	if found := Check(m.e).Violations; len(found) != 1 || !strings.HasPrefix(found[0], "I3 pay.charge.second:") {
		t.Errorf("got %q, want the attempt that was counted twice", found)
	}
}

// A worker writes until it is answered, so servers that are away lose no failure.
// It must live until then.
func TestServersThatAreAwayExcuseARepeatOnlyMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		name   string
		away   time.Duration // of the servers, from the first call on
		killed time.Duration // the worker, so long after it; zero: it lives
		later  time.Duration // the repeat
		clean  bool
	}{
		{"the repeat begins before the record can be written", 5 * time.Second, 0, 12 * time.Second, true},
		{"the repeat begins long after it could be", 5 * time.Second, 0, 20 * time.Second, false},
		{"its worker was killed while it waited for the servers", 5 * time.Second, 4 * time.Second, 40 * time.Second, true},
		{"its worker was killed when all was written", 5 * time.Second, 30 * time.Second, 40 * time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMaker()
			m.publish("pay.charge", "a", nil)
			first := m.call("pay.charge", "a", fails()).Began
			m.now = first.Add(tt.later)
			m.call("pay.charge", "a", fine()).Attempt = 1
			r := m.record("pay.charge", "a", mulligan.Done)
			r.History = r.History[1:]
			m.fault("cut", "nats2", first, tt.away)
			if tt.killed > 0 {
				m.fault("kill", "worker-1", first.Add(tt.killed), time.Second)
			}
			if found := Check(m.e).Violations; (len(found) == 0) != tt.clean {
				t.Errorf("got %q, want clean = %v", found, tt.clean)
			}
		})
	}
}

// Faults that follow each other, or meet, explain what none of them does alone.
func TestWhatSeveralFaultsExplain(t *testing.T) {
	const back = "worker-1 to downstream"
	type hit struct {
		what, target string
		at, took     time.Duration // after the first call began
	}
	for _, tt := range []struct {
		name   string
		faults []hit
		worker string        // of the repeat
		later  time.Duration // the repeat
		loses  bool          // the failure is in no record
		clean  bool
	}{
		{"servers that are away again before they were back", []hit{{"cut", "nats2", 0, 5 * time.Second}, {"cut", "nats3", 10 * time.Second, 10 * time.Second}}, "worker-1", 25 * time.Second, true, true},
		{"servers that were back in between", []hit{{"cut", "nats2", 0, 5 * time.Second}, {"cut", "nats3", 17 * time.Second, 10 * time.Second}}, "worker-1", 25 * time.Second, true, false},
		{"a kill while it waited for an answer whose way was cut", []hit{{"cut", back, 0, time.Second}, {"kill", "worker-1", 2500 * time.Millisecond, time.Second}}, "worker-1", 10 * time.Second, true, true},
		{"a kill long after it had waited in vain", []hit{{"cut", back, 0, time.Second}, {"kill", "worker-1", 9 * time.Second, time.Second}}, "worker-1", 20 * time.Second, true, false},
		{"a kill when the answer was there", []hit{{"kill", "worker-1", 2500 * time.Millisecond, time.Second}}, "worker-1", 10 * time.Second, true, false},
		{"a worker that was frozen with it in hand, and whose call arrives late", []hit{{"freeze", "worker-2", -time.Second, 5 * time.Second}, {"cut", "worker-2 to downstream", 3 * time.Second, 9 * time.Second}}, "worker-2", 12 * time.Second, false, true},
		{"one that was frozen long before its way was cut", []hit{{"freeze", "worker-2", -time.Second, 5 * time.Second}, {"cut", "worker-2 to downstream", 7 * time.Second, 5 * time.Second}}, "worker-2", 12 * time.Second, false, false},
		{"another that was frozen", []hit{{"freeze", "worker-3", -time.Second, 5 * time.Second}, {"cut", "worker-2 to downstream", 3 * time.Second, 9 * time.Second}}, "worker-2", 12 * time.Second, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMaker()
			m.publish("pay.charge", "a", nil)
			first := m.call("pay.charge", "a", fails()).Began
			m.now = first.Add(tt.later)
			again := m.call("pay.charge", "a", fine())
			again.Attempt, again.Worker = 1, tt.worker
			r := m.record("pay.charge", "a", mulligan.Done)
			if tt.loses {
				r.History = r.History[1:]
			}
			for _, h := range tt.faults {
				m.fault(h.what, h.target, first.Add(h.at), h.took)
			}
			if found := Check(m.e).Violations; (len(found) == 0) != tt.clean {
				t.Errorf("got %q, want clean = %v", found, tt.clean)
			}
		})
	}
}

// A kill explains one run more, not two.
func TestEachFaultExplainsOneRepeat(t *testing.T) {
	for kills, clean := range map[int]bool{1: false, 2: true} {
		m := newMaker()
		m.publish("model.ask", "a", nil)
		for n := range 6 {
			c := m.call("model.ask", "a", fails())
			c.Attempt = max(n-1, 1) // the first three are one attempt
			if n < kills {
				m.fault("kill", "worker-1", c.Ended, time.Second)
			}
			m.after(10 * time.Second)
		}
		m.bury("model.ask", "a", mulligan.AttemptsExhausted)
		if found := Check(m.e).Violations; (len(found) == 0) != clean {
			t.Errorf("with %d kills: got %q, want clean = %v", kills, found, clean)
		}
	}
}

func TestWhomAFaultHits(t *testing.T) {
	for target, want := range map[string]string{
		"worker1": "worker1 some", "worker12": "some", "w2": "w2 some", "workers": "worker1 w2 some", "worker1 from nats3": "worker1 some", "worker1 to downstream": "way1",
		"downstream": "way1 way2", "nats2": "servers", "consumer 3": "servers", "stream": "servers", "meta": "servers", "scheduler1": "", "publisher4": "", "operator": "",
	} {
		s := strikes([]Fault{{What: "cut", Target: target}}, []string{"worker1", "w2"})[0]
		var got []string
		for _, hit := range []struct {
			ok   bool
			name string
		}{{s.workers["worker1"], "worker1"}, {s.workers["w2"], "w2"}, {s.someWorker, "some"}, {s.ways["worker1"], "way1"}, {s.ways["w2"], "way2"}, {s.servers, "servers"}} {
			if hit.ok {
				got = append(got, hit.name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s hits %q, want %q", target, got, want)
		}
	}
	if s := strikes([]Fault{{What: "skew", Target: "worker1", For: time.Second}}, []string{"worker1"})[0]; s.someWorker || s.servers || s.overlaps(s.At, s.At, 0) {
		t.Errorf("a skew is no strike: %+v", s)
	}
}
