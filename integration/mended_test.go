package integration

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/scheduler"
)

var mail = mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}

func refuses(context.Context, *mulligan.Job) ([]byte, error) {
	return nil, mulligan.Permanent(errors.New("no"))
}

func (w *house) accept(t *testing.T, job mulligan.Job) {
	t.Helper()
	job.Kind = w.kind.Name
	if _, err := w.pub.Publish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	w.Accept(job.Kind, job.ID)
}

func TestAMalformedMessageDoesNotReplaceTheLetterOfItsKey(t *testing.T) {
	inHouse(t, mail, refuses, func(t *testing.T, w *house) {
		w.accept(t, mulligan.Job{ID: "x", Payload: []byte("precious")})
		time.Sleep(5 * time.Second)
		m := &nats.Msg{Subject: "mulligan.jobs.email.send.x", Header: nats.Header{"Mulligan-Deadline": {"tomorrow"}}, Data: []byte("garbage")}
		if _, err := w.JS.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		l, err := w.sched.Letter(t.Context(), mail.Name, "x")
		if err != nil || string(l.Payload) != "precious" || l.Reason != mulligan.PermanentFailure {
			t.Errorf("the job's letter is %s %q, %v", l.Reason, l.Payload, err)
		}
		if all, err := w.sched.Letters(t.Context(), scheduler.Query{}); len(all) != 2 || err != nil {
			t.Errorf("%d letters, %v; want the job's and the stranger's", len(all), err)
		}
	})
}

func TestWhatAHandlerWritesIntoItsJobIsNotParked(t *testing.T) {
	scribbles := func(_ context.Context, j *mulligan.Job) ([]byte, error) {
		if j.Attempt > 1 {
			return []byte(j.Header.Get("X-Team")), nil
		}
		copy(j.Payload, "XXXX")
		j.Header["X-Team"][0] = "changed"
		return nil, mulligan.After(3*time.Second, errors.New("busy"))
	}
	inHouse(t, mail, scribbles, func(t *testing.T, w *house) {
		w.accept(t, mulligan.Job{ID: "x", Payload: []byte("precious"), Header: nats.Header{"X-Team": {"mail"}}})
		time.Sleep(time.Minute)
		st, err := w.pub.Status(t.Context(), mail.Name, "x")
		if err != nil || st.State != mulligan.StatusDone || string(st.Record.Result.Data) != "mail" || string(w.last["x"]) != "precious" {
			t.Errorf("job is %+v with %q, %v", st, w.last["x"], err)
		}
	})
}

func TestAJobWhoseRecordIsGarbageIsBuried(t *testing.T) {
	inHouse(t, mail, refuses, func(t *testing.T, w *house) {
		kv, err := w.JS.KeyValue(t.Context(), mulligan.Topology{}.LedgerBucket())
		if err == nil {
			_, err = kv.Put(t.Context(), mulligan.RecordKey(mail.Name, "x"), []byte("garbage"))
		}
		if err == nil {
			_, err = w.JS.Publish(t.Context(), "mulligan.jobs.email.send.x", []byte("precious"))
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		l, err := w.sched.Letter(t.Context(), mail.Name, "x")
		if err != nil || l.Reason != mulligan.InDoubt || string(l.Payload) != "precious" || w.ran("x") != 0 {
			t.Errorf("letter %s %q, %v, after %d runs", l.Reason, l.Payload, err, w.ran("x"))
		}
	})
}

func TestTwoReplaysOfOneLetterLeaveAJobThatIsKnown(t *testing.T) {
	inHouse(t, mail, refuses, func(t *testing.T, w *house) {
		w.accept(t, mulligan.Job{ID: "x"})
		time.Sleep(5 * time.Second)
		first := true
		ctx := call.With(t.Context(), func(point string) {
			if point == "replay.reopen.load before" && first {
				first = false
				if _, err := (&scheduler.Scheduler{Conn: w.Conn}).Replay(t.Context(), mail.Name, "x"); err != nil {
					t.Error(err)
				}
				time.Sleep(3 * time.Second) // it dies once more
			}
		})
		if _, err := w.sched.Replay(ctx, mail.Name, "x"); err != nil {
			t.Log(err)
		}
		time.Sleep(time.Minute)
		st, err := w.pub.Status(t.Context(), mail.Name, "x")
		if c := w.Account(t); err != nil || st.State != mulligan.StatusDead || c.Dead != 1 || c.Held() != 0 {
			t.Errorf("job is %s, %v, with %+v", st.State, err, c)
		}
	})
}

func TestAJobIsNotTakenForAnotherWhenItsStreamWasMadeAgain(t *testing.T) {
	busy := func(_ context.Context, j *mulligan.Job) ([]byte, error) {
		if j.Attempt == 1 {
			return nil, mulligan.After(3*time.Second, errors.New("busy"))
		}
		return nil, nil
	}
	inHouse(t, mail, busy, func(t *testing.T, w *house) {
		w.accept(t, mulligan.Job{ID: "one"})
		time.Sleep(10 * time.Second)
		if err := w.JS.DeleteStream(t.Context(), mulligan.Topology{}.JobsStream()); err != nil {
			t.Fatal(err)
		}
		if err := (mulligan.Topology{}).Ensure(t.Context(), w.JS); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // the worker makes its consumer again
		w.accept(t, mulligan.Job{ID: "two"})
		time.Sleep(time.Minute)
		if st, err := w.pub.Status(t.Context(), mail.Name, "two"); err != nil || st.State != mulligan.StatusDone {
			t.Errorf("job is %s, %v: its address was that of another", st.State, err)
		}
	})
}
