package scheduler_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// bury gives a job its letter and its record, as a scheduler does.
func (f *floor) bury(t *testing.T, e mulligan.Envelope, attempts int) mulligan.Letter {
	t.Helper()
	past := history(attempts)
	f.record(t, e, mulligan.Record{State: mulligan.Dead, Reason: mulligan.AttemptsExhausted, Attempts: attempts, Spent: time.Minute, Starts: 2, History: past})
	return f.letter(t, mulligan.Letter{Envelope: e, Attempts: attempts, History: past, ErrorType: "http_503", Error: "busy", BuriedAt: time.Now()})
}

// queued returns the job that waits on the stream of jobs.
func (f *floor) queued(t *testing.T, token string) mulligan.Envelope {
	t.Helper()
	s, err := f.JS.Stream(t.Context(), f.Env.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), mulligan.Subject(f.Env.Topology.JobsRoot(), kind, token))
	if err != nil {
		t.Fatal(err)
	}
	e, err := mulligan.OpenJob(kind, token, &nats.Msg{Header: m.Header, Data: m.Data}, m.Time)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAReplayBringsTheJobBackAsItWas(t *testing.T) {
	for _, id := range []string{"order-7", "order 7", "ünï"} {
		f := open(t, natstest.Server(t), mulligan.Topology{})
		e := job(id, []byte{0, 255, '\r', '\n'})
		l := f.bury(t, e, 4)
		got, err := f.Replay(t.Context(), kind, id)
		if err != nil || got.Seq != 1 || got.Done {
			t.Fatalf("replay of %q: got %+v, %v", id, got, err)
		}
		f.noLetter(t, id)
		again := f.queued(t, e.Token)
		asPublished(t, again, e)
		if again.Replay != mulligan.Address(f.Env.Topology.DeadStream(), l.Seq) {
			t.Errorf("it is a replay of %q, want letter %d", again.Replay, l.Seq)
		}
		if left := time.Until(again.Deadline); left < mulligan.DefaultDeadline-time.Minute || left > mulligan.DefaultDeadline {
			t.Errorf("it has %v to its deadline, want what it had at first", left)
		}
		want := mulligan.Record{State: mulligan.Live, Payload: e.Fingerprint()}
		r := f.found(t, e)
		if want.Replay = r.Replay; r.Replay == "" {
			t.Error("its reopening has no name")
		}
		want.FirstCall = l.History[0].At
		want.History = append(l.History, mulligan.Attempt{Number: 4, Run: r.Replay, At: r.Last().At, Verb: mulligan.Replay, Reason: l.Reason, ErrorType: l.ErrorType, Error: l.Error})
		if !reflect.DeepEqual(r, want) {
			t.Errorf("its record is %+v, want %+v", r, want)
		}
	}
}

func TestAJobWhoseRecordIsGoneIsReplayedFromItsLetter(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	l := f.letter(t, mulligan.Letter{Envelope: e, Attempts: 4, History: history(4)})
	if _, err := f.Replay(t.Context(), kind, "x"); err != nil {
		t.Fatal(err)
	}
	asPublished(t, f.queued(t, "x"), e)
	if r := f.found(t, e); r.State != mulligan.Live || r.Attempts != 0 || len(r.History) != 5 || !reflect.DeepEqual(r.History[:4], l.History) {
		t.Errorf("its record is %+v, want it live with the letter's history", r)
	}
}

func TestALargestJobIsReplayedBitForBit(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	kinds := []mulligan.Kind{{Name: kind, Effect: mulligan.Keyed}}
	pub := &mulligan.Publisher{Conn: f.Env.Conn, Kinds: kinds}
	size := sizeLimit(t, pub)
	e := job("largest", bytes.Repeat([]byte{7}, size))
	r, err := pub.Publish(t.Context(), mulligan.Job{Kind: kind, ID: "largest", Payload: e.Payload})
	if err != nil {
		t.Fatal(err)
	}
	e = f.queued(t, "largest")
	jobs, err := f.JS.Stream(t.Context(), f.Env.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	if err := jobs.DeleteMsg(t.Context(), r.Seq); err != nil {
		t.Fatal(err)
	}
	f.bury(t, e, 32)
	if _, err := f.Replay(t.Context(), kind, "largest"); err != nil {
		t.Fatalf("a job of %d bytes, the most that can be published: %v", size, err)
	}
	asPublished(t, f.queued(t, "largest"), e)
	f.noLetter(t, "largest")
}

// sizeLimit is how many bytes the largest job with an ID of seven letters has.
func sizeLimit(t *testing.T, pub *mulligan.Publisher) int {
	t.Helper()
	low, high := 0, int(pub.Conn.MaxPayload())
	for low+1 < high {
		mid := (low + high) / 2
		_, err := pub.Publish(t.Context(), mulligan.Job{Kind: kind, ID: "attempt", Payload: make([]byte, mid)})
		switch {
		case errors.Is(err, mulligan.ErrTooLarge):
			high = mid
		case err == nil || errors.Is(err, mulligan.ErrKeyConflict): // one of another size is queued
			low = mid
		default:
			t.Fatal(err)
		}
	}
	return low
}

func TestAReplayWaitsForTheQueuedJobOfItsKey(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	f.bury(t, e, 4)
	seq := f.put(t, &nats.Msg{Subject: mulligan.Subject(f.Env.Topology.JobsRoot(), kind, "x"), Data: e.Payload})
	if _, err := f.Replay(t.Context(), kind, "x"); !errors.Is(err, scheduler.ErrQueued) {
		t.Fatalf("with the key queued: got %v", err)
	}
	f.mustLetter(t, "x")
	jobs, err := f.JS.Stream(t.Context(), f.Env.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	if err := jobs.DeleteMsg(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Replay(t.Context(), kind, "x"); err != nil {
		t.Fatalf("with the key free again: %v", err)
	}
	f.noLetter(t, "x")
	asPublished(t, f.queued(t, "x"), e)
}

func TestWhatCannotRunUnderItsKeyIsNotReplayed(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	for _, tt := range []struct {
		name   string
		reason mulligan.Reason
		record mulligan.Record
	}{
		{"a conflict's payload", mulligan.KeyConflict, mulligan.Record{State: mulligan.Live, Payload: "other"}},
		{"a conflict's payload whose key has no record", mulligan.KeyConflict, mulligan.Record{}},
		{"a malformed job", mulligan.Malformed, mulligan.Record{}},
		{"a job whose key belongs to another payload by now", mulligan.AttemptsExhausted, mulligan.Record{State: mulligan.Live, Payload: "other"}},
		{"a job whose key is done with another payload", mulligan.AttemptsExhausted, mulligan.Record{State: mulligan.Done, Payload: "other"}},
	} {
		e := job(tt.name, []byte("mine"))
		if tt.record.State != "" {
			f.record(t, e, tt.record)
		}
		f.letter(t, mulligan.Letter{Envelope: e, Reason: tt.reason})
		if got, err := f.Replay(t.Context(), kind, tt.name); !errors.Is(err, scheduler.ErrNotReplayable) {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
		if r := f.found(t, e); !reflect.DeepEqual(r, tt.record) {
			t.Errorf("%s: its record became %+v", tt.name, r)
		}
		f.mustLetter(t, tt.name)
	}
	if c := f.Account(t); c.Jobs != 0 {
		t.Errorf("%+v, want nothing published", c)
	}
	if _, err := f.Replay(t.Context(), kind, "nothing"); !errors.Is(err, mulligan.ErrNotFound) {
		t.Errorf("without a letter: got %v", err)
	}
}

func TestTheLetterOfADoneJobJustGoes(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	want := mulligan.Record{State: mulligan.Done, Payload: e.Fingerprint(), Attempts: 5, Result: mulligan.NewResult([]byte("sent"), time.Now().UTC())}
	f.record(t, e, want)
	f.letter(t, mulligan.Letter{Envelope: e})
	if got, err := f.Replay(t.Context(), kind, "x"); err != nil || got != (scheduler.Replayed{Done: true}) {
		t.Errorf("got %+v, %v; want it done", got, err)
	}
	f.noLetter(t, "x")
	if r := f.found(t, e); !reflect.DeepEqual(r, want) {
		t.Errorf("its record became %+v", r)
	}
	if c := f.Account(t); c.Held() != 0 {
		t.Errorf("%+v, want nothing published", c)
	}
}

func TestAnOlderReplayLeavesANewerLetter(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	e := job("x", []byte("x"))
	f.bury(t, e, 4)
	var newer mulligan.Letter
	ctx := call.With(t.Context(), func(point string) {
		if point == "replay.delete before" {
			newer = f.bury(t, e, 7) // it ran, and died again
		}
	})
	if _, err := f.Replay(ctx, kind, "x"); err != nil {
		t.Fatal(err)
	}
	if l := f.mustLetter(t, "x"); l.Seq != newer.Seq || l.Attempts != 7 {
		t.Errorf("the letter is %+v, want the newer one", l)
	}
}

func TestAReplayThatIsCutOffCanBeRepeated(t *testing.T) {
	for _, point := range []string{"replay.reopen.load before", "replay.reopen.store before", "replay.reopen.store after",
		"replay.publish before", "replay.publish after", "replay.delete before"} {
		t.Run("a replay that ends at "+point, func(t *testing.T) {
			f := open(t, natstest.Server(t), mulligan.Topology{})
			e := job("x", []byte("x"))
			f.bury(t, e, 4)
			f.Accept(kind, "x")
			ctx := call.With(t.Context(), func(p string) {
				if p == point {
					runtime.Goexit()
				}
			})
			var done sync.WaitGroup
			done.Go(func() {
				_, err := f.Replay(ctx, kind, "x")
				t.Errorf("it passed %s: %v", point, err)
			})
			done.Wait()
			f.mustLetter(t, "x")
			if got, err := f.Replay(t.Context(), kind, "x"); err != nil || got.Seq != 1 {
				t.Errorf("repeated: got %+v, %v", got, err)
			}
			f.noLetter(t, "x")
			asPublished(t, f.queued(t, "x"), e)
			if r := f.found(t, e); r.State != mulligan.Live || r.Attempts != 0 || len(r.History) != 5 {
				t.Errorf("its record is %+v, want it live with its history and one replay", r)
			}
			if c := f.Account(t); c.Jobs != 1 {
				t.Errorf("%+v, want one job", c)
			}
		})
	}
}

func TestReplaysOfOneLetterAtOnceBringTheJobBackOnce(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	f.bury(t, job("x", []byte("x")), 4)
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			if _, err := f.Replay(t.Context(), kind, "x"); err != nil && !errors.Is(err, mulligan.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	done.Wait()
	s, err := f.JS.Stream(t.Context(), f.Env.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	if last := s.CachedInfo().State.LastSeq; last != 1 {
		t.Errorf("%d jobs were stored, want 1", last)
	}
	f.noLetter(t, "x")
}

func TestAReplayWithoutAServerIsAnErrorAndTheLetterStays(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		f.bury(t, job("x", nil), 4)
		f.mustLetter(t, "x")
		f.Down()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := f.Replay(ctx, kind, "x"); !errors.Is(err, mulligan.ErrUnavailable) {
			t.Errorf("got %v, want %v", err, mulligan.ErrUnavailable)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := f.Letters(ctx, scheduler.Query{}); !errors.Is(err, mulligan.ErrUnavailable) {
			t.Errorf("its letters: got %v, want %v", err, mulligan.ErrUnavailable)
		}
		f.Restart(t)
		if l := f.mustLetter(t, "x"); l.Attempts != 4 {
			t.Errorf("its letter is %+v", l)
		}
	})
}

func TestASchedulerMakesTheStreamsThatAreMissing(t *testing.T) {
	e := natstest.Server(t)
	s := &scheduler.Scheduler{Conn: e.Conn}
	if got, err := s.Letters(t.Context(), scheduler.Query{}); err != nil || len(got) != 0 {
		t.Errorf("got %d letters, %v", len(got), err)
	}
	if _, err := e.JS.Stream(t.Context(), mulligan.Topology{}.DeadStream()); errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Error("there is still no stream of letters")
	}
}
