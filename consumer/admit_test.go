package consumer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

var (
	errFlaky  = errors.New("flaky")
	published = mulligan.FingerprintOf([]byte("published"))
)

func policy() mulligan.Policy {
	p, err := mulligan.Policy{}.Normal()
	if err != nil {
		panic(err)
	}
	return p
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func message() facts {
	p := policy()
	return facts{address: address{"J", 7}, effect: mulligan.Pure, payload: published, now: noon, deadline: noon.Add(time.Hour), start: "s1", fromJobs: true, policy: &p}
}

func TestAdmit(t *testing.T) {
	other := mulligan.FingerprintOf([]byte("other"))
	move := func(address string, v mulligan.Verb, due time.Duration) *mulligan.Move {
		return &mulligan.Move{Address: address, Verb: v, Reason: mulligan.UserBudget, Due: noon.Add(due), ErrorType: "http_500", Error: "boom"}
	}
	again := func(f *facts) { f.again = true }
	cameBack := func(f *facts) { f.fromJobs, f.deferred = false, true }
	hinted := mulligan.Record{State: mulligan.Parked, Payload: published, Attempts: 1, Move: &mulligan.Move{Address: "J:1", Verb: mulligan.Park, Due: noon, Unasked: true}}
	place := func(in time.Duration, denied bool) func(*facts) {
		return func(f *facts) {
			f.fromJobs, f.hasUser, f.place = false, true, budget.Place{At: noon.Add(in), Denied: denied}
		}
	}
	for _, tt := range []struct {
		name   string
		rec    mulligan.Record
		with   func(*facts)
		verb   mulligan.Verb
		reason mulligan.Reason
		store  bool
		state  mulligan.State
	}{
		{"a key without a record runs", mulligan.Record{}, nil, run, "", false, ""},
		{"a redelivery without a record notes its start and runs", mulligan.Record{}, again, run, "", true, mulligan.Live},
		{"a done key is acknowledged", mulligan.Record{State: mulligan.Done, Payload: published}, nil, ack, "", false, mulligan.Done},
		{"another payload under a done key is a conflict", mulligan.Record{State: mulligan.Done, Payload: other}, nil, spend, mulligan.KeyConflict, false, mulligan.Done},
		{"another payload under a live key is a conflict", mulligan.Record{State: mulligan.Live, Payload: other}, again, spend, mulligan.KeyConflict, false, mulligan.Live},
		{"an interrupted park is finished", mulligan.Record{State: mulligan.Parked, Payload: published, Move: move("J:7", mulligan.Park, time.Minute)}, again, park, mulligan.UserBudget, false, mulligan.Parked},
		{"an interrupted end is finished", mulligan.Record{State: mulligan.Spent, Payload: published, Reason: mulligan.PermanentFailure, Move: move("J:7", mulligan.Spend, 0)}, again, spend, mulligan.PermanentFailure, false, mulligan.Spent},
		{"a key spent by another message stays spent", mulligan.Record{State: mulligan.Spent, Payload: published, Reason: mulligan.Expired, Move: move("R:1", mulligan.Spend, 0)}, nil, spend, mulligan.Expired, false, mulligan.Spent},
		{"a dead key stays dead", mulligan.Record{State: mulligan.Dead, Payload: published, Reason: mulligan.TimeExhausted}, nil, spend, mulligan.TimeExhausted, false, mulligan.Dead},
		{"a job past its deadline is not run", mulligan.Record{}, func(f *facts) { f.deadline = noon }, spend, mulligan.Expired, true, mulligan.Spent},
		{"a job whose attempts are used is not run", mulligan.Record{State: mulligan.Live, Payload: published, Attempts: 4}, nil, spend, mulligan.AttemptsExhausted, true, mulligan.Spent},
		{"a job whose time is used is not run", mulligan.Record{State: mulligan.Live, Payload: published, Spent: 10 * time.Second}, nil, spend, mulligan.TimeExhausted, true, mulligan.Spent},
		{"a job published for later is deferred", mulligan.Record{}, func(f *facts) { f.notBefore = noon.Add(time.Minute) }, deferred, mulligan.NotYet, true, mulligan.Parked},
		{"a job published for later than its deadline is not kept until then", mulligan.Record{}, func(f *facts) { f.notBefore = noon.Add(time.Hour) }, spend, mulligan.Expired, true, mulligan.Spent},
		{"a job published for now runs", mulligan.Record{}, func(f *facts) { f.notBefore = noon }, run, "", false, ""},
		{"a retry that is due runs, whatever its clock says", mulligan.Record{State: mulligan.Parked, Payload: published, Move: move("J:1", mulligan.Park, time.Second)}, func(f *facts) { f.fromJobs, f.due = false, noon.Add(time.Second) }, run, "", false, mulligan.Parked},
		{"a key published again waits behind its own retry", mulligan.Record{State: mulligan.Parked, Payload: published, Move: move("J:1", mulligan.Park, time.Minute)}, nil, wait, mulligan.InProgress, false, mulligan.Parked},
		{"a job that was adopted is deferred too", mulligan.Record{}, func(f *facts) { f.fromJobs, f.notBefore = false, noon.Add(time.Minute) }, deferred, mulligan.NotYet, true, mulligan.Parked},
		{"a retry that a crash left behind waits behind the next one", mulligan.Record{State: mulligan.Parked, Payload: published, Move: move("R:8", mulligan.Park, time.Hour)}, func(f *facts) { f.fromJobs, f.again = false, true }, wait, mulligan.InProgress, false, mulligan.Parked},
		{"a message with a short deadline does not end a key with a longer one", mulligan.Record{State: mulligan.Parked, Payload: published, Deadline: noon.Add(time.Hour), Move: move("J:1", mulligan.Park, time.Minute)}, func(f *facts) { f.deadline = noon }, wait, mulligan.InProgress, false, mulligan.Parked},
		{"a key published again runs once its retry was due", mulligan.Record{State: mulligan.Parked, Payload: published, Move: move("J:1", mulligan.Park, -time.Second)}, nil, run, "", false, mulligan.Parked},
		{"a redelivery before its nak is due waits on", mulligan.Record{State: mulligan.Live, Payload: published, Move: move("J:7", mulligan.Nak, time.Second)}, again, nak, "", false, mulligan.Live},
		{"a redelivery when its nak was due runs and notes its start", mulligan.Record{State: mulligan.Live, Payload: published, Move: move("J:7", mulligan.Nak, 0)}, again, run, "", true, mulligan.Live},
		{"a second start without an end waits to run alone", mulligan.Record{State: mulligan.Live, Payload: published, Starts: 1}, again, suspect, "", false, mulligan.Live},
		{"alone it runs", mulligan.Record{State: mulligan.Live, Payload: published, Starts: 1}, func(f *facts) { f.again, f.alone = true, true }, run, "", true, mulligan.Live},
		{"starts without an end are spent as crashed", mulligan.Record{State: mulligan.Live, Payload: published, Starts: maxStarts - 1}, again, spend, mulligan.Crashed, true, mulligan.Spent},
		{"a retry whose user was not asked yet asks now", hinted, func(f *facts) { f.fromJobs, f.hasUser = false, true }, askUser, "", false, mulligan.Parked},
		{"with a place for now it runs", hinted, place(0, false), run, "", false, mulligan.Parked},
		{"with a later place it is deferred until then", hinted, place(time.Second, false), deferred, mulligan.UserBudget, true, mulligan.Parked},
		{"without a place it is spent", hinted, place(0, true), spend, mulligan.UserBudget, true, mulligan.Spent},
		{"a keyed key that its downstream may have forgotten is not sent again", mulligan.Record{State: mulligan.Parked, Payload: published, FirstCall: noon.Add(-25 * time.Hour)}, func(f *facts) { f.effect, f.keyTTL = mulligan.Keyed, 24*time.Hour }, spend, mulligan.InDoubt, true, mulligan.Spent},
		{"nor after a call that ended without a word", mulligan.Record{State: mulligan.Live, Payload: published, Starts: 1, Start: &mulligan.Start{Delivery: "s0", At: noon.Add(-25 * time.Hour)}}, func(f *facts) { f.again, f.alone, f.effect, f.keyTTL = true, true, mulligan.Keyed, 24*time.Hour }, spend, mulligan.InDoubt, true, mulligan.Spent},
		{"one that it remembers is", mulligan.Record{State: mulligan.Parked, Payload: published, FirstCall: noon.Add(-23 * time.Hour)}, func(f *facts) { f.effect, f.keyTTL = mulligan.Keyed, 24*time.Hour }, run, "", false, mulligan.Parked},
		{"a done key whose letter is to be taken back says so again", mulligan.Record{State: mulligan.Done, Payload: published, Letter: true}, again, settle, mulligan.InDoubt, false, mulligan.Done},
		{"a deferred first attempt runs", mulligan.Record{State: mulligan.Parked, Payload: published, Move: move("J:1", mulligan.Defer, 0)}, cameBack, run, "", false, mulligan.Parked},
		{"a job that snoozed after a failure runs", mulligan.Record{State: mulligan.Parked, Payload: published, Attempts: 1, Move: &mulligan.Move{Address: "J:1", Verb: mulligan.Defer, Reason: mulligan.Snoozed}}, cameBack, run, "", false, mulligan.Parked},
		{"a deferred job whose key has failed meanwhile has no token and waits for one", mulligan.Record{State: mulligan.Live, Payload: published, Attempts: 1, Move: move("J:1", mulligan.Nak, -time.Second)}, cameBack, wait, mulligan.InProgress, false, mulligan.Live},
		{"a deferred job that was nak'd has its token", mulligan.Record{State: mulligan.Live, Payload: published, Attempts: 1, Move: move("J:7", mulligan.Nak, -time.Second)}, cameBack, run, "", false, mulligan.Live},
		{"without a user nobody is asked", hinted, func(f *facts) { f.fromJobs = false }, run, "", false, mulligan.Parked},
		{"after a nak, whose attempt had an end, it takes one start more", mulligan.Record{State: mulligan.Live, Payload: published, Starts: maxStarts - 1, Move: move("J:7", mulligan.Nak, 0)}, func(f *facts) { f.again, f.alone = true, true }, run, "", true, mulligan.Live},
		{"a job for later published again waits behind the first", mulligan.Record{State: mulligan.Parked, Payload: published, Move: move("J:1", mulligan.Defer, time.Minute)}, func(f *facts) { f.notBefore = noon.Add(time.Minute) }, wait, mulligan.InProgress, false, mulligan.Parked},
		{"what waited behind a retry waits again behind the next one", mulligan.Record{State: mulligan.Parked, Payload: published, Move: move("R:8", mulligan.Park, time.Hour)}, func(f *facts) { f.fromJobs, f.due = false, noon }, wait, mulligan.InProgress, false, mulligan.Parked},
		{"a start whose write was answered late is not noted twice", mulligan.Record{State: mulligan.Live, Payload: published, Starts: 1, Start: &mulligan.Start{Delivery: "s1"}}, again, run, "", false, mulligan.Live},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, r := message(), tt.rec
			if tt.with != nil {
				tt.with(&f)
			}
			v, store := admit(&r, f)
			if v.Verb != tt.verb || v.Reason != tt.reason || store != tt.store || r.State != tt.state {
				t.Errorf("admit = %s %q, store %v, state %q; want %s %q, store %v, state %q", v.Verb, v.Reason, store, r.State, tt.verb, tt.reason, tt.store, tt.state)
			}
			if !store && r.State == "" && r.Move != nil {
				t.Error("a record that is not stored was changed")
			}
		})
	}
}

func TestFail(t *testing.T) {
	end := func(run string, err error) ending {
		return ending{facts: message(), run: run, started: noon, took: 50 * time.Millisecond, err: err, chance: mulligan.Chance{U: 0.5, V: 0.5}}
	}
	granted := func(v verdict) (mulligan.Grant, error) {
		return mulligan.Grant{Now: noon, Deadline: noon.Add(time.Hour), Nak: true}, nil
	}
	t.Run("a failure is noted with its delay before the message moves", func(t *testing.T) {
		var r mulligan.Record
		v, store, err := fail(&r, end("r1", errFlaky), granted)
		if v.Verb != nak || !store || err != nil {
			t.Fatalf("fail = %+v, %v, %v", v, store, err)
		}
		if r.State != mulligan.Live || r.Attempts != 1 || r.Spent != 150*time.Millisecond || r.Last().Delay != 100*time.Millisecond || r.Move.Address != "J:7" {
			t.Errorf("record %+v", r)
		}
	})
	t.Run("a failure whose answer was lost is counted once", func(t *testing.T) {
		var r mulligan.Record
		first, _, _ := fail(&r, end("r1", errFlaky), granted)
		v, store, _ := fail(&r, end("r1", errFlaky), granted)
		if store || r.Attempts != 1 || v.Verb != first.Verb || !v.Due.Equal(first.Due) {
			t.Errorf("again: %+v, store %v, %d attempts; first %+v", v, store, r.Attempts, first)
		}
	})
	t.Run("two messages of one key share its attempts", func(t *testing.T) {
		var r mulligan.Record
		for _, run := range []string{"a", "b", "c", "d"} {
			if v, _, _ := fail(&r, end(run, errFlaky), granted); run == "d" && (v.Verb != spend || v.Reason != mulligan.AttemptsExhausted) {
				t.Errorf("fourth failure: %+v", v)
			}
		}
	})
	t.Run("a late failure of a done key follows the record", func(t *testing.T) {
		r := mulligan.Record{State: mulligan.Done, Payload: published}
		if v, store, _ := fail(&r, end("r1", errFlaky), granted); v.Verb != ack || store {
			t.Errorf("got %+v, store %v", v, store)
		}
	})
	t.Run("a late failure of a dead key adds its facts and nothing else", func(t *testing.T) {
		r := mulligan.Record{State: mulligan.Dead, Payload: published, Reason: mulligan.Crashed}
		v, store, _ := fail(&r, end("r1", errFlaky), granted)
		if v.Verb != spend || v.Reason != mulligan.Crashed || !store || r.State != mulligan.Dead || len(r.History) != 1 {
			t.Errorf("got %+v, store %v, record %+v", v, store, r)
		}
		if a := r.History[0]; a.Verb != mulligan.Spend || a.Reason != "" || a.Delay != 0 || a.ErrorType != "error" {
			t.Errorf("its entry is %+v, want no retry and why", a)
		}
	})
	t.Run("a snooze counts no attempt", func(t *testing.T) {
		var r mulligan.Record
		v, _, _ := fail(&r, end("r1", mulligan.Snooze(time.Minute)), granted)
		if v.Verb != deferred || r.Attempts != 0 || r.Spent != 0 || r.State != mulligan.Parked {
			t.Errorf("got %+v, record %+v", v, r)
		}
	})
	t.Run("a changed payload is kept beside the published one", func(t *testing.T) {
		var r mulligan.Record
		v, _, _ := fail(&r, end("r1", mulligan.Changed([]byte("b"), errFlaky)), granted)
		if v.Verb != nak || string(r.Changed) != "b" || len(r.Changes) != 1 || r.Payload != published {
			t.Errorf("got %+v, record %+v", v, r)
		}
	})
	t.Run("an end clears the starts without one", func(t *testing.T) {
		r := mulligan.Record{State: mulligan.Live, Payload: published, Starts: 2}
		if _, _, _ = fail(&r, end("r1", errFlaky), granted); r.Starts != 0 {
			t.Errorf("%d starts", r.Starts)
		}
	})
}

func TestSucceed(t *testing.T) {
	e := ending{facts: message(), run: "r9", limit: 100, started: noon, took: time.Second}
	for _, tt := range []struct {
		name  string
		rec   mulligan.Record
		store bool
	}{
		{"the first success is recorded", mulligan.Record{}, true},
		{"a success overrides a spent key", mulligan.Record{State: mulligan.Spent, Payload: published}, true},
		{"a success overrides a dead key", mulligan.Record{State: mulligan.Dead, Payload: published}, true},
		{"the first result stands", mulligan.Record{State: mulligan.Done, Payload: published}, false},
		{"another payload's record is left alone", mulligan.Record{State: mulligan.Live, Payload: "other"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.rec
			v, store := succeed(&r, e, []byte("result"))
			if store != tt.store {
				t.Errorf("store %v, want %v", store, tt.store)
			}
			if want := map[bool]mulligan.Verb{false: ack, true: settle}[tt.rec.State == mulligan.Dead]; v.Verb != want {
				t.Errorf("%s, want %s: a scheduler takes the letter back", v.Verb, want)
			}
			if tt.store && (r.State != mulligan.Done || string(r.Result.Data) != "result" || r.Move != nil) {
				t.Errorf("record %+v", r)
			}
		})
	}
}

// A start that is noted answers for what was decided before: a redelivery after a
// crash does not ask the user again, and is not taken for another message.
func TestAStartNotedNeedsNoAskingAndKnowsItsDeadline(t *testing.T) {
	f := message()
	f.effect, f.hasUser, f.place, f.fromJobs = mulligan.Once, true, budget.Place{At: noon}, false
	r := mulligan.Record{State: mulligan.Parked, Payload: published, Attempts: 1, Move: &mulligan.Move{Address: "J:1", Verb: mulligan.Park, Due: noon, Unasked: true}}
	if v, store := admit(&r, f); v.Verb != run || !store || r.Move.Unasked || !r.Deadline.Equal(f.deadline) {
		t.Fatalf("%+v, store %v, record %+v", v, store, r)
	}
	r.Start.Stepped = true
	f.again, f.alone, f.start, f.place = true, true, "s2", budget.Place{}
	if v, _ := admit(&r, f); v.Verb != run {
		t.Errorf("redelivered between two steps: %+v", v)
	}
}

func TestAMergePatchIsShownOnlyWhereItSaysTheChange(t *testing.T) {
	for _, tt := range []struct{ from, to, want string }{
		{`{"a":1,"b":2}`, `{"a":1,"b":3}`, `{"b":3}`},
		{`{"a":1,"b":2}`, `{"a":1}`, `{"b":null}`},
		{`{"a":1}`, `{"a":null}`, ``},
		{`[{"a":1},{"b":2}]`, `[{"a":1},{"b":3}]`, ``},
		{`{}`, `null`, ``},
		{`{"a":[1,2]}`, `{"a":[1,3]}`, `{"a":[1,3]}`},
		{`text`, `{}`, ``},
		{``, `{}`, ``},
		{`{"a":1}`, `{"a":"` + strings.Repeat("x", mulligan.MaxChange) + `"}`, ``},
	} {
		if got := string(mergePatch([]byte(tt.from), []byte(tt.to))); got != tt.want {
			t.Errorf("from %s to %.40s: %s, want %s", tt.from, tt.to, got, tt.want)
		}
	}
}
