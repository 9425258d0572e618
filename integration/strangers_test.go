package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/scheduler"
)

func TestHeadersThatNoClientWouldSendStopNobody(t *testing.T) {
	t.Parallel()
	f := newFloor(t, mulligan.Kind{Name: "raw.job", Effect: mulligan.Pure})
	f.work(t, &consumer.Worker{}, func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		if string(job.Payload) != "body" {
			t.Errorf("%s came with the payload %q", job.ID, job.Payload)
		}
		return nil, nil
	})
	blocks := []string{"NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0 503 odd\r\n\r\n", "NATS/1.0\r\nbad name: 1\r\n\r\n", "NATS/1.0\r\n: 1\r\n\r\n",
		"NATS/1.0\r\nNul: \x00\r\n\r\n", "NATS/1.0\r\nMulligan-Deadline : 1\r\n\r\n", "NATS/1.0\r\nMulligan-User: a\xff\r\n\r\n", "nonsense\r\n\r\n"}
	for i, block := range blocks {
		f.raw(t, mulligan.Subject(f.Topology.JobsRoot(), f.kind.Name, fmt.Sprint("raw-", i)), block, "body")
	}
	f.publish(t, mulligan.Job{ID: "after", Payload: []byte("body")})
	streams{f.JS}.settled(t, time.Minute)
	for i, block := range blocks {
		id := fmt.Sprint("raw-", i)
		l, err := (&scheduler.Scheduler{Conn: f.Conn}).Letter(t.Context(), f.kind.Name, id)
		switch ran := len(f.runsOf(id)); {
		case ran == 1 && errors.Is(err, mulligan.ErrNotFound):
		case ran == 0 && err == nil && l.Reason == mulligan.Malformed && string(l.Payload) == "body":
		default:
			t.Errorf("%q: it ran %d times and has the letter %s with %q, %v; want it to run or end as malformed", block, ran, l.Reason, l.Payload, err)
		}
	}
	if n := len(f.runsOf("after")); n != 1 {
		t.Errorf("the job behind them ran %d times", n)
	}
}

// A status in the first line is taken out by the server when it stores the
// message: that one is a job.
func TestAnEmptyMessageWithAStatusIsBuriedAndItsNeighboursRunAtOnce(t *testing.T) {
	t.Parallel()
	f := newFloor(t, mulligan.Kind{Name: "raw.empty", Effect: mulligan.Pure})
	s := &scheduler.Scheduler{Conn: f.Conn}
	const bad = 4 // of these, which come first
	blocks := []string{"NATS/1.0\r\nStatus: 404\r\n\r\n", "NATS/1.0\r\nStatus: 503\r\n\r\n", "NATS/1.0\r\nStatus: ok\r\n\r\n", "NATS/1.0 409 x\r\nstatus: 408\r\n\r\n",
		"NATS/1.0 100 Idle Heartbeat\r\n\r\n", "NATS/1.0 408\r\n\r\n", "NATS/1.0 409 Consumer Deleted\r\n\r\n", "NATS/1.0 503\r\n\r\n"}
	status := func(ofBad, ofOthers string) {
		t.Helper()
		for i := range blocks {
			id, want := fmt.Sprint("stranger-", i), ofOthers
			if i < bad {
				want = ofBad
			}
			if st, err := f.pub.Status(t.Context(), f.kind.Name, id); err != nil || st.State != want {
				t.Errorf("%s is %s, %v; want %s", id, st.State, err, want)
			}
		}
	}
	for i, block := range blocks { // all wait, so that they are pulled together
		f.raw(t, mulligan.Subject(f.Topology.JobsRoot(), f.kind.Name, fmt.Sprint("stranger-", i)), block, "")
		f.publish(t, mulligan.Job{ID: fmt.Sprint("neighbour-", i)})
	}
	status(mulligan.StatusQueued, mulligan.StatusQueued)
	began := time.Now()
	f.work(t, &consumer.Worker{Concurrency: 32}, func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil })
	const soon = 15 * time.Second // half of the time after which the server would deliver them again
	eventually(t, soon, "the neighbours ran", func() bool { return len(f.named("neighbour-", 1)) == len(blocks) })
	streams{f.JS}.settled(t, soon-time.Since(began))
	for i, block := range blocks {
		id := fmt.Sprint("stranger-", i)
		l, err := s.Letter(t.Context(), f.kind.Name, id)
		switch runs := len(f.runsOf(id)); {
		case i < bad && (err != nil || l.Reason != mulligan.Malformed || l.ID != id || len(l.Payload) != 0 || runs != 0):
			t.Errorf("%q: it ran %d times and has the letter %s of %q, %v; want it to end as malformed", block, runs, l.Reason, l.ID, err)
		case i >= bad && (!errors.Is(err, mulligan.ErrNotFound) || runs != 1):
			t.Errorf("%q: it ran %d times and has the letter %s, %v; want it to run", block, runs, l.Reason, err)
		}
	}
	all, err := s.Letters(t.Context(), scheduler.Query{Kind: f.kind.Name, Reason: mulligan.Malformed})
	if err != nil || len(all) != bad {
		t.Errorf("%d letters are listed, %v; want %d", len(all), err, bad)
	}
	// The key of what is malformed has no record. The others were stored before there
	// was a consumer: another may have delivered them, so they record their end.
	status(mulligan.StatusUnknown, mulligan.StatusDone)
	if n := len(f.named("neighbour-", 2)); n != 0 {
		t.Errorf("%d neighbours ran twice", n)
	}
}

// raw publishes as no client would: the header block is sent as it stands.
func (f *floor) raw(t *testing.T, subject, header, body string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, err = fmt.Fprintf(c, "CONNECT {\"headers\":true,\"verbose\":false}\r\nHPUB %s %d %d\r\n%s%s\r\nPING\r\n", subject, len(header), len(header)+len(body), header, body)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer := make([]byte, 4096)
	for said := ""; !strings.Contains(said, "PONG"); {
		n, err := c.Read(answer)
		if err != nil {
			t.Fatalf("the server said %q to %q, %v", said, header, err)
		}
		said += string(answer[:n])
	}
}

func TestAKeyedJobPublishedAgainWhileItsRetryWaitsUsesOneBudget(t *testing.T) {
	t.Parallel()
	policy := mulligan.Policy{Total: time.Minute, Timeout: 2 * time.Second}
	f := newFloor(t, mulligan.Kind{Name: "twice.job", Effect: mulligan.Keyed, Policy: policy})
	f.publish(t, mulligan.Job{ID: "a", Payload: []byte("x")})
	f.work(t, &consumer.Worker{}, func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		if job.Attempt == 1 {
			return nil, mulligan.After(5*time.Second, errAgain)
		}
		return nil, nil
	})
	eventually(t, 10*time.Second, "its retry waits", func() bool { return f.Account(t).At == 1 && f.Account(t).Jobs == 0 })
	f.Restart(t) // the server forgets that it had the ID
	f.twice(t, "a", "x")
	f.await(t, "a", mulligan.StatusDone)
	f.twice(t, "a", "x")
	streams{f.JS}.settled(t, time.Minute)
	if n := len(f.runsOf("a")); n != 2 {
		t.Errorf("it ran %d times, want two attempts", n)
	}
}

// await waits until a job of the floor's kind is in a state.
func (f *floor) await(t *testing.T, id, state string) {
	t.Helper()
	eventually(t, 30*time.Second, id+" is "+state, func() bool {
		st, err := f.pub.Status(t.Context(), f.kind.Name, id)
		if err != nil {
			t.Fatal(err)
		}
		return st.State == state
	})
}

// twice publishes a job again: it is recognised, and another payload refused.
func (f *floor) twice(t *testing.T, id, payload string) {
	t.Helper()
	r, err := f.pub.Publish(t.Context(), mulligan.Job{Kind: f.kind.Name, ID: id, Payload: []byte(payload)})
	if err != nil || !r.Duplicate {
		t.Errorf("published again: %+v, %v; want a duplicate", r, err)
	}
	if _, err := f.pub.Publish(t.Context(), mulligan.Job{Kind: f.kind.Name, ID: id, Payload: []byte("not " + payload)}); !errors.Is(err, mulligan.ErrKeyConflict) {
		t.Errorf("published with another payload: %v", err)
	}
}
