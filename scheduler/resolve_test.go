package scheduler_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// doubted gives a once job a letter that says in doubt.
func (f *floor) doubted(t *testing.T, e mulligan.Envelope) mulligan.Letter {
	t.Helper()
	started := &mulligan.Start{Delivery: "d", Address: "MULLIGAN_JOBS:1", At: time.Now().UTC()}
	past := []mulligan.Attempt{{Number: 1, Run: "start:d", At: started.At, ErrorType: "no_end", Verb: mulligan.Spend, Reason: mulligan.InDoubt}}
	f.record(t, e, mulligan.Record{State: mulligan.Dead, Effect: mulligan.Once, Reason: mulligan.InDoubt, Attempts: 1, Starts: 1, Start: started, History: past,
		Steps: []mulligan.StepRecord{{Name: "charge", Result: mulligan.NewResult([]byte("1"), started.At)}, {Name: "mail", Begun: started.At, Run: "r"}}})
	return f.letter(t, mulligan.Letter{Envelope: e, Reason: mulligan.InDoubt, Attempts: 1, History: past, ErrorType: "no_end", BuriedAt: time.Now()})
}

func TestALetterInDoubtIsNotReplayedUntilAPersonDecides(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	f.doubted(t, e)
	if _, err := f.Replay(t.Context(), kind, "x"); !errors.Is(err, mulligan.ErrInDoubt) || !strings.Contains(err.Error(), "--not-done") {
		t.Fatalf("a replay: %v, want it refused with what to do", err)
	}
	if r := f.found(t, e); r.State != mulligan.Dead || len(r.History) != 1 {
		t.Errorf("the refused replay left the record %+v", r)
	}
	if c := f.Account(t); c.Jobs != 0 || c.Dead != 1 {
		t.Errorf("%+v after a refused replay", c)
	}
	if _, err := f.ResolveNotDone(t.Context(), kind, "x"); err != nil {
		t.Fatal(err)
	}
	f.noLetter(t, "x")
	asPublished(t, f.queued(t, "x"), e)
	r := f.found(t, e)
	if r.State != mulligan.Live || r.Open() != nil || r.Last().Verb != mulligan.Resolve {
		t.Errorf("the record is %+v, want it live and to say who sent it back", r)
	}
	if len(r.Steps) != 1 || r.Steps[0].Name != "charge" {
		t.Errorf("the steps are %+v, want the one that is known to be done", r.Steps)
	}
}

func TestAStepThatIsResolvedAsDoneIsNotRepeatedAndTheJobGoesOn(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	f.doubted(t, e)
	for _, bad := range []scheduler.StepDone{{Name: "charge"}, {Name: "nosuch"}, {Name: "mail", Result: []byte("{")}} {
		if _, err := f.ResolveStepDone(t.Context(), kind, "x", bad); err == nil {
			t.Errorf("step %+v was resolved, want an error: it is not one without an end, or no JSON", bad)
		}
	}
	if _, err := f.ResolveStepDone(t.Context(), kind, "x", scheduler.StepDone{Name: "mail", Result: []byte(`"m-1"`)}); err != nil {
		t.Fatal(err)
	}
	f.noLetter(t, "x")
	asPublished(t, f.queued(t, "x"), e)
	if r := f.found(t, e); r.State != mulligan.Live || len(r.Steps) != 2 || string(r.Step("mail").Result.Data) != `"m-1"` || r.OpenStep() != nil {
		t.Errorf("the record is %+v", r)
	}
}

func TestEachStepInDoubtIsResolvedByItself(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	f.doubted(t, e)
	err := f.ledger.Update(t.Context(), "test", e.RecordKey(), func(r *mulligan.Record) bool {
		r.Steps = append(r.Steps, mulligan.StepRecord{Name: "post", Begun: time.Now(), Run: "r2"})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ResolveStepDone(t.Context(), kind, "x", scheduler.StepDone{Name: "mail"}); !errors.Is(err, mulligan.ErrInDoubt) || !strings.Contains(err.Error(), "step post began too") {
		t.Fatalf("the first of two: %v, want to be told of the other", err)
	}
	if r := f.found(t, e); r.State != mulligan.Dead || r.Step("mail").Open() || !r.Step("post").Open() {
		t.Errorf("the record is %+v, want it dead, and the mail known", r)
	}
	f.mustLetter(t, "x")
	if _, err := f.ResolveStepDone(t.Context(), kind, "x", scheduler.StepDone{Name: "post", Result: make([]byte, 0)}); err != nil {
		t.Fatal(err)
	}
	f.noLetter(t, "x")
	if r := f.found(t, e); r.State != mulligan.Live || len(r.Steps) != 3 || r.OpenStep() != nil {
		t.Errorf("the record is %+v", r)
	}
	// Once it is sent back, a word about a step is too late.
	f.letter(t, mulligan.Letter{Envelope: e, Reason: mulligan.InDoubt, BuriedAt: time.Now()})
	if _, err := f.ResolveStepDone(t.Context(), kind, "x", scheduler.StepDone{Name: "another"}); !errors.Is(err, scheduler.ErrNotReplayable) {
		t.Errorf("a step of a job that runs again: %v", err)
	}
	// Said again, after an interruption, it goes on where it was: to publish.
	if _, err := f.ResolveStepDone(t.Context(), kind, "x", scheduler.StepDone{Name: "post"}); !errors.Is(err, scheduler.ErrQueued) {
		t.Errorf("the same word again: %v, want that the job is queued", err)
	}
	large := append(append([]byte{'"'}, bytes.Repeat([]byte{'x'}, mulligan.DefaultMaxResult)...), '"')
	if _, err := f.ResolveStepDone(t.Context(), kind, "x", scheduler.StepDone{Name: "mail", Result: large}); !errors.Is(err, mulligan.ErrTooLarge) {
		t.Errorf("a result that would not be kept: %v", err)
	}
}

func TestAJobThatIsResolvedAsDoneIsDone(t *testing.T) {
	for _, lost := range []bool{false, true} {
		f := open(t, natstest.Server(t), mulligan.Topology{})
		e := job("x", []byte("x"))
		f.doubted(t, e)
		if lost { // its record is garbage: the word of a person is all there is
			kv, err := f.JS.KeyValue(t.Context(), mulligan.Topology{}.LedgerBucket())
			if err == nil {
				_, err = kv.Put(t.Context(), e.RecordKey(), []byte("garbage"))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := f.ResolveDone(t.Context(), kind, "x", []byte("sent by hand")); err != nil {
			t.Fatal(err)
		}
		f.noLetter(t, "x")
		r := f.found(t, e)
		if r.State != mulligan.Done || r.Open() != nil || string(r.Result.Data) != "sent by hand" || r.Payload != e.Fingerprint() || r.Last().Verb != mulligan.Resolve {
			t.Errorf("the record is %+v", r)
		}
		if err := f.ResolveDone(t.Context(), kind, "x", nil); !errors.Is(err, mulligan.ErrNotFound) {
			t.Errorf("resolved again: %v, want that there is no letter", err)
		}
	}
}

func TestAResultRecordedMeanwhileOutlivesTheWordOfAPerson(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	f.doubted(t, e)
	f.record(t, e, mulligan.Record{State: mulligan.Done, Result: mulligan.NewResult([]byte("late"), time.Now())})
	if err := f.ResolveDone(t.Context(), kind, "x", []byte("by hand")); err != nil {
		t.Fatal(err)
	}
	f.noLetter(t, "x")
	if r := f.found(t, e); string(r.Result.Data) != "late" {
		t.Errorf("the result is %q", r.Result.Data)
	}
}

func TestWhenAReplayMayRepeatAnEffect(t *testing.T) {
	ago := func(d time.Duration) []mulligan.Attempt {
		return []mulligan.Attempt{{Number: 1, Run: "r", At: time.Now().Add(-d), Took: time.Second, ErrorType: "timeout", Verb: mulligan.Spend, Reason: mulligan.AttemptsExhausted}}
	}
	safe := ago(25 * time.Hour)
	safe[0].NotStarted = true
	began := &mulligan.Start{Delivery: "d", Address: "J:1", At: time.Now().Add(-25 * time.Hour)}
	stepped := &mulligan.Start{Delivery: "d", Address: "J:1", At: began.At, Stepped: true}
	done := []mulligan.StepRecord{{Name: "charge", Result: mulligan.NewResult(nil, time.Now())}}
	open1 := []mulligan.StepRecord{{Name: "charge", Begun: time.Now(), Run: "r"}}
	for _, tt := range []struct {
		name  string
		rec   mulligan.Record
		doubt string
	}{
		{"a keyed key that the downstream remembers", mulligan.Record{Effect: mulligan.Keyed, History: ago(23 * time.Hour)}, ""},
		{"a keyed key that it may have forgotten", mulligan.Record{Effect: mulligan.Keyed, History: ago(25 * time.Hour)}, "forgotten"},
		{"a keyed key that never reached it", mulligan.Record{Effect: mulligan.Keyed, History: safe}, ""},
		{"a keyed job that crashed long ago", mulligan.Record{Effect: mulligan.Keyed, Starts: 1, Start: began}, "forgotten"},
		{"a pure job, however old", mulligan.Record{Effect: mulligan.Pure, History: ago(600 * time.Hour)}, ""},
		{"a once job that failed for good: its call may have worked", mulligan.Record{Effect: mulligan.Once, History: ago(600 * time.Hour)}, "nothing says that its effect did not happen"},
		{"a once job whose effect certainly did not happen", mulligan.Record{Effect: mulligan.Once, History: safe}, ""},
		{"a once job that failed between steps", mulligan.Record{Effect: mulligan.Once, History: ago(time.Hour), Start: stepped, Steps: done}, ""},
		{"a once job of which a person said that it did not happen", mulligan.Record{Effect: mulligan.Once, History: append(ago(time.Hour), mulligan.Attempt{Run: "p", Verb: mulligan.Resolve, ErrorType: "timeout"})}, ""},
		{"a keyed key whose first call the history has forgotten", mulligan.Record{Effect: mulligan.Keyed, FirstCall: time.Now().Add(-25 * time.Hour), History: ago(time.Hour)}, "forgotten"},
		{"a once job that began and has no end", mulligan.Record{Effect: mulligan.Once, Starts: 1, Start: began}, "its end is not known"},
		{"a once job between two steps", mulligan.Record{Effect: mulligan.Once, Starts: 1, Start: stepped, Steps: done}, ""},
		{"a once job within a step", mulligan.Record{Effect: mulligan.Once, Steps: open1}, "its step charge began"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := open(t, natstest.Server(t), mulligan.Topology{})
			e := job("x", []byte("x"))
			tt.rec.State, tt.rec.Reason = mulligan.Dead, mulligan.AttemptsExhausted
			f.record(t, e, tt.rec)
			l := f.letter(t, mulligan.Letter{Envelope: e, BuriedAt: time.Now()})
			found, err := f.Find(t.Context(), &l)
			if err != nil || found.Record == nil || (found.Doubt == "") != (tt.doubt == "") || !strings.Contains(found.Doubt, tt.doubt) {
				t.Errorf("before a replay: %+v, %v, want doubt: %q", found, err, tt.doubt)
			}
			_, err = f.Replay(t.Context(), kind, "x")
			if tt.doubt == "" && err != nil || tt.doubt != "" && (!errors.Is(err, mulligan.ErrInDoubt) || !strings.Contains(err.Error(), tt.doubt)) {
				t.Errorf("replay: %v, want doubt: %q", err, tt.doubt)
			}
		})
	}
}

func TestAKindSaysHowLongItsKeysAreRemembered(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	if _, err := (mulligan.Topology{}).Declare(t.Context(), f.JS, []mulligan.Kind{{Name: kind, Effect: mulligan.Keyed, KeyTTL: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	f.record(t, e, mulligan.Record{State: mulligan.Dead, Effect: mulligan.Keyed, History: []mulligan.Attempt{{Number: 1, Run: "r", At: time.Now().Add(-2 * time.Hour), ErrorType: "timeout"}}})
	f.letter(t, mulligan.Letter{Envelope: e, BuriedAt: time.Now()})
	if _, err := f.Replay(t.Context(), kind, "x"); !errors.Is(err, mulligan.ErrInDoubt) {
		t.Errorf("replay two hours after the first call, with keys remembered for one: %v", err)
	}
}

func TestAReplayThatIsRefusedLeavesTheKeyDead(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	f.bury(t, e, 4)
	before := f.found(t, e)
	// Another message of the key lies in the stream, as a plain client may put it there.
	f.put(t, e.Moved(mulligan.Subject(f.Env.Topology.JobsRoot(), kind, "x")))
	if _, err := f.Replay(t.Context(), kind, "x"); !errors.Is(err, scheduler.ErrQueued) {
		t.Fatalf("replay: %v", err)
	}
	if r := f.found(t, e); r.State != mulligan.Dead || len(r.History) != len(before.History) {
		t.Errorf("the record is %+v, want it as it was", r)
	}
	f.mustLetter(t, "x")
}

func TestAReplayThatIsRefusedLeavesAKeyWithoutARecordWithoutOne(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	f.letter(t, mulligan.Letter{Envelope: e, BuriedAt: time.Now()})
	f.put(t, e.Moved(mulligan.Subject(f.Env.Topology.JobsRoot(), kind, "x")))
	if _, err := f.Replay(t.Context(), kind, "x"); !errors.Is(err, scheduler.ErrQueued) {
		t.Fatalf("replay: %v", err)
	}
	if r := f.found(t, e); r.State != "" {
		t.Errorf("the record is %+v, want none", r)
	}
	f.mustLetter(t, "x")
}

// A server of a cluster that leads no more answers for a while from what it knew:
// that the key lived, before it was dead.
func TestAKeyIsReopenedThoughItIsReadFromWhenItLived(t *testing.T) {
	for _, old := range []mulligan.State{mulligan.Live, mulligan.Parked} {
		f := open(t, natstest.Server(t), mulligan.Topology{})
		e := job("x", []byte("x"))
		f.bury(t, e, 4)
		reads := 0
		ctx := call.With(t.Context(), func(point string) {
			switch point {
			case "replay.reopen.load before":
				if reads++; reads == 1 {
					f.record(t, e, mulligan.Record{State: old, Attempts: 1})
				}
			case "replay.reopen.load after":
				if reads == 1 {
					f.record(t, e, mulligan.Record{State: mulligan.Dead, Attempts: 4, History: history(4)})
				}
			}
		})
		if _, err := f.Replay(ctx, kind, "x"); err != nil {
			t.Fatal(err)
		}
		if r := f.found(t, e); reads != 2 || r.State != mulligan.Live || r.Replay == "" || r.Attempts != 0 {
			t.Errorf("when it was %s: after %d reads the record is %+v; want two, and it reopened", old, reads, r)
		}
		f.noLetter(t, "x")
	}
}

func TestASuccessOverALetterTakesItBack(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		e := job("x", []byte("x"))
		f.bury(t, e, 4)
		f.record(t, e, mulligan.Record{State: mulligan.Done, Result: mulligan.NewResult([]byte("late"), time.Now())})
		other := job("x", []byte("another payload"))
		f.letter(t, mulligan.Letter{Envelope: other, Reason: mulligan.KeyConflict, BuriedAt: time.Now()})
		f.spend(t, e, mulligan.Move{Reason: mulligan.InDoubt}) // how a worker says so
		run(t, t.Context(), f.Scheduler, 5*time.Second)
		if l, err := f.Letter(t.Context(), kind, "x"); err != nil || l.Reason != mulligan.KeyConflict {
			t.Errorf("the letter left is %+v, %v; want that of the other payload only", l, err)
		}
		if c := f.Account(t); c.Dead != 1 || c.Held() != 0 {
			t.Errorf("%+v", c)
		}
	})
}

func TestAKeyIsBuriedOnceHoweverManyMessagesItHas(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		e := job("x", []byte("x"))
		l := f.bury(t, e, 4)
		for range 3 {
			f.spend(t, e, mulligan.Move{Reason: mulligan.AttemptsExhausted})
			run(t, t.Context(), f.Scheduler, 5*time.Second)
		}
		if got := f.mustLetter(t, "x"); got.Seq != l.Seq {
			t.Errorf("its letter was written again, at %d; want %d", got.Seq, l.Seq)
		}
		if c := f.Account(t); c.Dead != 1 || c.Held() != 0 {
			t.Errorf("%+v", c)
		}
	})
}

func TestWhatIsFoundOfAJobIsItsOwn(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	l := f.doubted(t, e)
	conflict := mulligan.Letter{Envelope: job("x", []byte("y")), Reason: mulligan.KeyConflict}
	if found, err := f.Find(t.Context(), &conflict); err != nil || found.Record != nil || found.Doubt != "" {
		t.Errorf("of another payload: %+v, %v; want nothing", found, err)
	}
	if found, err := f.Find(t.Context(), &l); err != nil || found.Record == nil || found.Record.OpenStep().Name != "mail" || found.Doubt == "" {
		t.Errorf("of the job: %+v, %v; want its record and the doubt", found, err)
	}
	f.record(t, e, mulligan.Record{State: mulligan.Done, Result: mulligan.NewResult(nil, time.Now())})
	if found, err := f.Find(t.Context(), &l); err != nil || found.Doubt != "" {
		t.Errorf("once it is done: %+v, %v; want no doubt", found, err)
	}
	kv, err := f.JS.KeyValue(t.Context(), mulligan.Topology{}.LedgerBucket())
	if err == nil {
		_, err = kv.Put(t.Context(), e.RecordKey(), []byte("garbage"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if found, err := f.Find(t.Context(), &l); err != nil || found.Record != nil || !strings.Contains(found.Doubt, "cannot be read") {
		t.Errorf("of a record that is garbage: %+v, %v; want a doubt", found, err)
	}
}
