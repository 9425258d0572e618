package consumer

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func TestAdmitOnce(t *testing.T) {
	began := func(delivery, address string) mulligan.Record {
		return mulligan.Record{State: mulligan.Live, Payload: published, Effect: mulligan.Once, Starts: 1, Start: &mulligan.Start{Delivery: delivery, Address: address, At: noon.Add(-time.Minute)}}
	}
	with := func(r mulligan.Record, steps ...mulligan.StepRecord) mulligan.Record {
		r.Steps = steps
		return r
	}
	lately := func(r mulligan.Record) mulligan.Record {
		r.Start.At = noon.Add(-mulligan.AckWait/2 + time.Second)
		return r
	}
	ended := mulligan.StepRecord{Name: "charge", Result: mulligan.NewResult([]byte("1"), noon)}
	open := mulligan.StepRecord{Name: "mail", Begun: noon, Run: "x"}
	stepping := func(r mulligan.Record, steps ...mulligan.StepRecord) mulligan.Record {
		r = with(r, steps...)
		r.Start.Stepped = true
		return r
	}
	again := func(f *facts) { f.again, f.alone, f.start = true, true, "s2" }
	keyless := func(f *facts) { f.effect, f.noKey, f.again, f.start = mulligan.Keyed, true, true, "s2" }
	for _, tt := range []struct {
		name   string
		rec    mulligan.Record
		with   func(*facts)
		verb   mulligan.Verb
		reason mulligan.Reason
		store  bool
		starts int
	}{
		{"its start is recorded before it runs", mulligan.Record{}, nil, run, "", true, 1},
		{"a start noted before, whose answer was lost, is not noted twice", began("s1", "J:7"), nil, run, "", false, 1},
		{"redelivered without a start it runs: the crash was before", mulligan.Record{}, again, run, "", true, 1},
		{"redelivered after its start nobody knows", began("s1", "J:7"), again, spend, mulligan.InDoubt, true, 1},
		{"redelivered soon after its start it is left to who started it", lately(began("s1", "J:7")), again, drop, "", false, 1},
		{"also without a key of its own", lately(began("s1", "J:7")), keyless, drop, "", false, 1},
		{"redelivered between two steps it runs again", stepping(began("s1", "J:7"), ended), again, run, "", true, 2},
		{"steps of an earlier run do not vouch for one that used none", with(began("s1", "J:7"), ended), again, spend, mulligan.InDoubt, true, 1},
		{"redelivered within a step nobody knows", stepping(began("s1", "J:7"), ended, open), again, spend, mulligan.InDoubt, true, 1},
		{"another message of the key waits for the end", began("s0", "J:6"), nil, wait, mulligan.InProgress, false, 1},
		{"another message waits also between two steps", stepping(began("s0", "J:6"), ended), nil, wait, mulligan.InProgress, false, 1},
		{"at its deadline it waits no more", began("s0", "J:6"), func(f *facts) { f.deadline = noon }, spend, mulligan.InDoubt, true, 1},
		{"after a recorded end it runs and notes its start", mulligan.Record{State: mulligan.Live, Payload: published, Attempts: 1, Start: &mulligan.Start{Delivery: "s0", Address: "J:7"}}, again, run, "", true, 1},
		{"a job without a key of its own is not run again after a start", began("s1", "J:7"), keyless, spend, mulligan.NoKey, true, 1},
		{"not even between two steps", stepping(began("s1", "J:7"), ended), keyless, spend, mulligan.NoKey, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, r := message(), tt.rec
			f.effect = mulligan.Once
			if tt.with != nil {
				tt.with(&f)
			}
			v, store := admit(&r, f)
			if v.Verb != tt.verb || v.Reason != tt.reason || store != tt.store || r.Starts != tt.starts {
				t.Errorf("admit = %s %q, store %v, %d starts; want %s %q, store %v, %d starts", v.Verb, v.Reason, store, r.Starts, tt.verb, tt.reason, tt.store, tt.starts)
			}
			if v.Verb == spend && (r.Attempts != 1 || r.Last().Reason != tt.reason || r.Last().ErrorType != "no_end") {
				t.Errorf("what is known is not in the history: %+v", r)
			}
		})
	}
}

func TestJudgeOnce(t *testing.T) {
	once := mulligan.Ended{Number: 1, Effect: mulligan.Once, Tried: []mulligan.Fingerprint{published}}
	last, stepped, within, keyless := once, once, once, once
	last.Number = 4
	stepped.Stepped = true
	within.Stepped, within.OpenStep = true, "mail"
	keyless.Effect, keyless.NoKey = mulligan.Keyed, true
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	for _, tt := range []struct {
		name   string
		a      mulligan.Ended
		err    error
		verb   mulligan.Verb
		reason mulligan.Reason
	}{
		{"a failure leaves doubt", once, errFlaky, spend, mulligan.InDoubt},
		{"a reset leaves doubt", once, syscall.ECONNRESET, spend, mulligan.InDoubt},
		{"a throttled call leaves doubt: nothing says that it did nothing", once, mulligan.After(time.Second, errFlaky), spend, mulligan.InDoubt},
		{"a panic leaves doubt", once, mulligan.Typed("panic", errFlaky), spend, mulligan.InDoubt},
		{"a changed payload does not help against doubt", once, mulligan.Changed([]byte("b"), errFlaky), spend, mulligan.InDoubt},
		{"an effect that certainly did not happen is retried", once, mulligan.NotStarted(errFlaky), retry, ""},
		{"so is a refused connection", once, refused, retry, ""},
		{"and a throttled call that did nothing", once, mulligan.After(time.Second, mulligan.NotStarted(errFlaky)), retry, ""},
		{"within its attempts", last, refused, spend, mulligan.AttemptsExhausted},
		{"a permanent failure is what the handler says", once, mulligan.Permanent(errFlaky), spend, mulligan.PermanentFailure},
		{"unusable output is no doubt", once, mulligan.Unusable(errFlaky), spend, mulligan.NoChange},
		{"a snooze is no doubt", once, mulligan.Snooze(time.Minute), deferred, mulligan.Snoozed},
		{"a failure between two steps is retried", stepped, errFlaky, retry, ""},
		{"a failure within a step leaves doubt", within, errFlaky, spend, mulligan.InDoubt},
		{"whatever the handler makes of it", within, mulligan.Permanent(mulligan.NotStarted(errFlaky)), spend, mulligan.InDoubt},
		{"a step in doubt is the job's doubt", stepped, fmt.Errorf("mail: %w", mulligan.ErrInDoubt), spend, mulligan.InDoubt},
		{"a side effect without a key is not retried", keyless, errFlaky, spend, mulligan.NoKey},
		{"not even if it certainly did not happen", keyless, mulligan.NotStarted(errFlaky), spend, mulligan.NoKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := policy().Judge(tt.a, tt.err, mulligan.Chance{U: 0.5, V: 0.5})
			if got.Verb != tt.verb || got.Reason != tt.reason {
				t.Errorf("Judge(%+v, %v) = %s %s, want %s %s", tt.a, tt.err, got.Verb, got.Reason, tt.verb, tt.reason)
			}
		})
	}
}

// A once job whose worker was slow: it was redelivered, found in doubt, and only
// then the first run ends.
func TestALateEndOfAOnceJob(t *testing.T) {
	late := ending{facts: message(), run: "r1", started: noon, took: time.Minute, chance: mulligan.Chance{U: 0.5, V: 0.5}}
	late.effect = mulligan.Once
	doubted := func(t *testing.T) mulligan.Record {
		t.Helper()
		var r mulligan.Record
		if v, _ := admit(&r, late.facts); v.Verb != run {
			t.Fatal(v)
		}
		second := late.facts
		second.again, second.start, second.now = true, "s2", noon.Add(mulligan.AckWait)
		if v, _ := admit(&r, second); v.Reason != mulligan.InDoubt {
			t.Fatal(v)
		}
		return r
	}
	nobody := func(v verdict) (mulligan.Grant, error) {
		t.Errorf("a budget was asked for %+v", v)
		return mulligan.Grant{}, errors.New("asked")
	}
	t.Run("a success settles the doubt and counts once", func(t *testing.T) {
		r := doubted(t)
		v, store := succeed(&r, late, []byte("sent"))
		if v.Verb != ack || !store || r.State != mulligan.Done || r.Reason != "" || r.Attempts != 1 || len(r.History) != 1 || r.Last().ErrorType != "" {
			t.Errorf("%+v, store %v, record %+v", v, store, r)
		}
	})
	t.Run("over a letter it has the scheduler take that back", func(t *testing.T) {
		r := doubted(t)
		r.State = mulligan.Dead
		if v, _ := succeed(&r, late, []byte("sent")); v.Verb != settle || v.Reason != mulligan.InDoubt || r.State != mulligan.Done {
			t.Errorf("%+v, record %+v", v, r)
		}
	})
	t.Run("a failure adds what it knows and follows the record", func(t *testing.T) {
		r := doubted(t)
		late := late
		late.err = mulligan.NotStarted(errFlaky)
		v, store, err := fail(&r, late, nobody)
		if err != nil || v.Verb != spend || v.Reason != mulligan.InDoubt || !store || r.State != mulligan.Spent || r.Attempts != 1 || len(r.History) != 1 || !r.Last().NotStarted || r.Open() != nil {
			t.Errorf("%+v, store %v, record %+v", v, store, r)
		}
	})
	t.Run("a failure leaves the start of a replay alone", func(t *testing.T) {
		r := mulligan.Record{State: mulligan.Live, Payload: published, Starts: 1, Start: &mulligan.Start{Delivery: "s9", Address: "J:8"}}
		late := late
		late.err = errFlaky
		for range 2 { // the answer to the first write was lost
			if v, _, err := fail(&r, late, nobody); err != nil || v.Verb != nak || v.Reason != mulligan.InProgress || r.Open() == nil || len(r.History) != 1 {
				t.Errorf("%+v, record %+v", v, r)
			}
		}
	})
	t.Run("a failure leaves its message to the delivery that has taken over", func(t *testing.T) {
		r := mulligan.Record{State: mulligan.Live, Payload: published, Starts: 1, Start: &mulligan.Start{Delivery: "s2", Address: late.address.String(), Stepped: true}}
		late := late
		late.err = errFlaky
		for range 2 {
			if v, _, err := fail(&r, late, nobody); err != nil || v.Verb != drop || r.Open() == nil {
				t.Errorf("%+v, record %+v", v, r)
			}
		}
	})
}
