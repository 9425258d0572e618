package dedupe_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// desk is a server with a ledger.
type desk struct {
	*natstest.Env
	*dedupe.Ledger
	kv jetstream.KeyValue
}

func open(t *testing.T, e *natstest.Env) *desk {
	t.Helper()
	e.Provision(t, mulligan.Topology{})
	l, err := dedupe.Open(t.Context(), e.JS, e.Topology)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := e.JS.KeyValue(t.Context(), e.Topology.LedgerBucket())
	if err != nil {
		t.Fatal(err)
	}
	return &desk{Env: e, Ledger: l, kv: kv}
}

// limit lets records expire sooner than in earnest.
func (d *desk) limit(t *testing.T, age time.Duration) {
	t.Helper()
	s, err := d.JS.Stream(t.Context(), "KV_"+d.Topology.LedgerBucket())
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxAge = age
	if _, err := d.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

const key = "email.send.order-42"

func (d *desk) load(t *testing.T) *mulligan.Record {
	t.Helper()
	r, err := d.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fail notes a failed attempt, as a worker does that finds its own work.
func fail(run string) func(r *mulligan.Record) bool {
	return func(r *mulligan.Record) bool {
		if r.Noted(run) != nil {
			return false
		}
		r.State = mulligan.Live
		r.Attempts++
		r.Note(mulligan.Attempt{Number: r.Attempts, Run: run})
		return true
	}
}

func TestARecordIsKeptAsItWasWritten(t *testing.T) {
	d := open(t, natstest.Server(t))
	if r := d.load(t); r != nil {
		t.Errorf("a key that nobody wrote has %+v, want no record", r)
	}
	now := time.Now().UTC()
	want := mulligan.Record{
		State: mulligan.Done, Payload: mulligan.FingerprintOf([]byte("x")), Attempts: 3, Spent: time.Second, Starts: 1, Start: &mulligan.Start{Delivery: "s"},
		Reason: mulligan.Crashed, Changed: []byte{0, 255}, Changes: []mulligan.Fingerprint{"f"}, Result: mulligan.NewResult(bytes.Repeat([]byte{7}, mulligan.DefaultMaxResult), now),
		Move:    &mulligan.Move{Address: "JOBS:7", Verb: mulligan.Park, Due: now},
		History: []mulligan.Attempt{{Number: 1, Run: "r", At: now, Took: time.Second, ErrorType: "http_503", Error: "busy", Verb: mulligan.Nak, Delay: time.Second}},
	}
	var given mulligan.Record
	err := d.Update(t.Context(), "write", key, func(r *mulligan.Record) bool {
		given, *r = *r, want
		return true
	})
	if err != nil || !reflect.DeepEqual(given, mulligan.Record{}) {
		t.Errorf("for a key without a record apply was given %+v, %v; want an empty one", given, err)
	}
	if got := d.load(t); !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

func TestARecordThatApplyLeavesIsNotStored(t *testing.T) {
	d := open(t, natstest.Server(t))
	leave := func(r *mulligan.Record) bool {
		r.Attempts = 99
		return false
	}
	if err := d.Update(t.Context(), "leave", key, leave); err != nil || d.load(t) != nil {
		t.Errorf("got %+v, %v; want still no record", d.load(t), err)
	}
	if err := d.Update(t.Context(), "fail", key, fail("r1")); err != nil {
		t.Fatal(err)
	}
	if err := d.Update(t.Context(), "leave", key, leave); err != nil || d.load(t).Attempts != 1 {
		t.Errorf("got %+v, %v; want the record as it was", d.load(t), err)
	}
}

func TestTwoMessagesOfOneKeyShareItsAttempts(t *testing.T) {
	const workers, each = 6, 5
	d := open(t, natstest.Server(t))
	var done sync.WaitGroup
	for w := range workers {
		done.Go(func() {
			for i := range each {
				if err := d.Update(t.Context(), "fail", key, fail(fmt.Sprint(w, "/", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	r := d.load(t)
	if r.Attempts != workers*each || len(r.History) != workers*each {
		t.Errorf("%d attempts and %d in the history, want %d", r.Attempts, len(r.History), workers*each)
	}
	for i, a := range r.History {
		if a.Number != i+1 {
			t.Errorf("attempt %d has number %d", i+1, a.Number)
		}
	}
}

func TestADecisionIsMadeAgainFromTheRecordJustRead(t *testing.T) {
	d := open(t, natstest.Server(t))
	other := sync.OnceFunc(func() {
		if err := d.Update(t.Context(), "done", key, func(r *mulligan.Record) bool { r.State = mulligan.Done; return true }); err != nil {
			t.Error(err)
		}
	})
	ctx := call.With(t.Context(), func(point string) {
		if point == "late.store before" {
			other()
		}
	})
	var seen []mulligan.State
	err := d.Update(ctx, "late", key, func(r *mulligan.Record) bool {
		if seen = append(seen, r.State); r.State == mulligan.Done {
			return false
		}
		r.State = mulligan.Spent
		return true
	})
	if got := d.load(t).State; err != nil || got != mulligan.Done || len(seen) != 2 {
		t.Errorf("the record is %s after apply saw %q, %v; want it done", got, seen, err)
	}
}

// Who has seen a record is given what a reader would be: also after it changed what
// it did not store, after another has changed the record or removed it, and after an
// update that did not come to its end.
func TestWhoHasSeenARecordIsGivenWhatIsStored(t *testing.T) {
	d := open(t, natstest.Server(t))
	var seen dedupe.Sight
	moved := func(run string) func(r *mulligan.Record) bool {
		return func(r *mulligan.Record) bool {
			r.Move = &mulligan.Move{Address: "JOBS:7", Verb: mulligan.Nak}
			return fail(run)(r)
		}
	}
	mess := func(r *mulligan.Record) bool {
		r.Attempts = 99
		if r.Move != nil {
			r.Move.Address, r.History[0].Run = "mess", "mess"
		}
		return false
	}
	other := func(apply func(r *mulligan.Record) bool) func() error {
		return func() error { return d.Update(t.Context(), "other", key, apply) }
	}
	remove := func() error { return d.kv.Delete(t.Context(), key) }
	for _, step := range []struct {
		name   string
		before func() error
		apply  func(r *mulligan.Record) bool
		stop   string // where it is cut short
	}{
		{name: "nothing was seen", apply: moved("r1")},
		{name: "it was stored", apply: mess},
		{name: "it was left, though changed", apply: moved("r2")},
		{name: "it was stored again", apply: func(r *mulligan.Record) bool { r.Move.Address = "JOBS:8"; return true }},
		{name: "another has changed it", before: other(moved("r3")), apply: moved("r4")},
		{name: "another has removed it", before: remove, apply: moved("r5")},
		{name: "it is removed and left", before: remove, apply: mess},
		{name: "it is stored after that", apply: moved("r6")},
		{name: "it is cut short before it is stored", apply: moved("r7"), stop: "step.store before"},
		{name: "another has changed it after that", before: other(moved("r8")), apply: moved("r9")},
		{name: "it is cut short before it is read", before: other(moved("r10")), apply: mess, stop: "step.load before"},
		{name: "another has changed it before that", apply: moved("r11")},
		{name: "it was made anew", apply: func(r *mulligan.Record) bool { *r = mulligan.Record{}; return true }},
		{name: "it was taken away", apply: moved("r12")},
	} {
		t.Run(step.name, func(t *testing.T) {
			if step.before != nil {
				if err := step.before(); err != nil {
					t.Fatal(err)
				}
			}
			want := d.load(t)
			if want == nil {
				want = new(mulligan.Record)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ctx = call.With(ctx, func(point string) {
				if point == step.stop {
					cancel()
				}
			})
			var given mulligan.Record
			err := d.UpdateSeen(ctx, "step", key, &seen, func(r *mulligan.Record) bool {
				copied, err := mulligan.DecodeRecord(r.Encode()) // before it is changed
				if err != nil {
					t.Error(err)
				}
				given = *copied
				return step.apply(r)
			})
			if step.stop != "" {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want it cut short", err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(given, *want) {
				t.Errorf("apply was last given %+v, %v; want %+v", given, err, *want)
			}
		})
	}
}

// What was stored is not decoded again: the bytes that apply is given are those that
// it had stored.
func TestARecordThatWasSeenIsKeptDecoded(t *testing.T) {
	d := open(t, natstest.Server(t))
	var seen dedupe.Sight
	payload := []byte("changed")
	for range 3 {
		err := d.UpdateSeen(t.Context(), "step", key, &seen, func(r *mulligan.Record) bool {
			if r.Changed != nil && &r.Changed[0] != &payload[0] {
				t.Error("it was decoded again")
			}
			r.State, r.Changed = mulligan.Live, payload
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAKeyWhoseRecordIsGoneStartsAnew(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, d *desk) error{
		"a record that was deleted": func(t *testing.T, d *desk) error { return d.kv.Delete(t.Context(), key) },
		"a record that was purged":  func(t *testing.T, d *desk) error { return d.kv.Purge(t.Context(), key) },
		"a record past its time": func(t *testing.T, d *desk) error {
			d.limit(t, time.Hour)
			time.Sleep(2 * time.Hour)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := open(t, natstest.InBubble(t))
				for _, run := range []string{"r1", "r2"} {
					if err := d.Update(t.Context(), "fail", key, fail(run)); err != nil {
						t.Fatal(err)
					}
				}
				if err := end(t, d); err != nil {
					t.Fatal(err)
				}
				if r := d.load(t); r != nil {
					t.Errorf("got %+v, want no record", r)
				}
				if err := d.Update(t.Context(), "fail", key, fail("r3")); err != nil || d.load(t).Attempts != 1 {
					t.Errorf("got %+v, %v; want a record with one attempt", d.load(t), err)
				}
			})
		})
	}
}

func TestARecordOutlivesTheLongestDeadlineAndItsLetter(t *testing.T) {
	d := open(t, natstest.Server(t))
	dead, err := d.JS.Stream(t.Context(), d.Topology.DeadStream())
	if err != nil {
		t.Fatal(err)
	}
	status, err := d.kv.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if longest := mulligan.MaxDeadline + dead.CachedInfo().Config.MaxAge; status.TTL() <= longest {
		t.Errorf("a record is kept for %v, its letter may be there for %v", status.TTL(), longest)
	}
}

func TestARecordThatIsUnreadableStaysAndIsAnError(t *testing.T) {
	d := open(t, natstest.Server(t))
	for _, garbage := range []string{"", "garbage", "[]", `{"state":7}`, `{"attempts":"many"}`, "\x00"} {
		if _, err := d.kv.Put(t.Context(), key, []byte(garbage)); err != nil {
			t.Fatal(err)
		}
		if r, err := d.Load(t.Context(), key); r != nil || !errors.Is(err, dedupe.ErrUnreadable) {
			t.Errorf("load of %q: got %+v, %v", garbage, r, err)
		}
		err := d.Update(t.Context(), "fail", key, func(*mulligan.Record) bool {
			t.Errorf("apply was called over %q", garbage)
			return true
		})
		if !errors.Is(err, dedupe.ErrUnreadable) || !strings.Contains(err.Error(), key) {
			t.Errorf("update of %q: got %v, want an error that names the key", garbage, err)
		}
		if e, err := d.kv.Get(t.Context(), key); err != nil || string(e.Value()) != garbage {
			t.Errorf("%q became %q, %v", garbage, e.Value(), err)
		}
	}
}

func TestAnUpdateWaitsForTheServerOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, natstest.InBubble(t))
		d.Down()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := d.Update(ctx, "fail", key, fail("r1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of its context", err)
		}
		var done sync.WaitGroup
		done.Go(func() {
			if err := d.Update(t.Context(), "fail", key, fail("r2")); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(30 * time.Second)
		d.Restart(t)
		done.Wait()
		if r := d.load(t); r.Attempts != 1 || r.Noted("r2") == nil {
			t.Errorf("got %+v, want the attempt that waited", r)
		}
	})
}

func TestALedgerThatIsMissingIsAnError(t *testing.T) {
	if _, err := dedupe.Open(t.Context(), natstest.Server(t).JS, mulligan.Topology{}); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("got %v", err)
	}
}
