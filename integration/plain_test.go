package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// bodies are what a handler was given, by ID.
type bodies struct {
	mu  sync.Mutex
	got map[string][]byte
}

func (b *bodies) set(id string, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got[id] = bytes.Clone(body)
}

func (b *bodies) of(id string) (body []byte, ran bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	body, ran = b.got[id]
	return body, ran
}

func TestPlainNATS(t *testing.T) {
	t.Parallel()
	f := newFloor(t, mulligan.Kind{Name: "plain.job", Effect: mulligan.Pure})
	got := &bodies{got: map[string][]byte{}}
	f.work(t, &consumer.Worker{}, func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		got.set(job.ID, job.Payload)
		return nil, nil
	})
	eventually(t, 10*time.Second, "the worker has made its consumer", func() bool {
		_, err := f.JS.Consumer(t.Context(), f.Topology.JobsStream(), mulligan.DurableName(mulligan.DefaultDownstream))
		return err == nil
	})
	limit := f.largest(t)
	big, long := random(limit), strings.Repeat("x", 3900)
	for i, c := range []struct {
		name, token string
		header      nats.Header
		body        []byte
		runs        string // the ID under which it does; empty for a letter
	}{
		{"a subject and a body", "order-42", nil, []byte("hello"), "order-42"},
		{"no body", "empty", nil, nil, "empty"},
		{"the largest body", "big", nil, big, "big"},
		{"an encoded ID", mulligan.Token("ünï/1"), nil, []byte("x"), "ünï/1"},
		{"an ID that names itself in a header", mulligan.Token("a b"), nats.Header{"mulligan-id": {"a b"}}, []byte("x"), "a b"},
		{"headers of somebody else's", "strange", nats.Header{"X-Mine": {"1", "2"}, "x-mine": {"3"}}, []byte("x"), "strange"},
		{"headers that only workers write", "forged", nats.Header{"Mulligan-Attempts": {"99"}, "Mulligan-Reason": {"cancelled"}, "Mulligan-Replay": {"x"}}, []byte("x"), "forged"},
		{"a token that is no encoding", "=%%%", nil, []byte("x"), ""},
		{"a token that encodes nothing", "=", nil, []byte("x"), ""},
		{"a token that encodes what needs none", "=YWJj", nil, []byte("x"), ""},
		{"a token that encodes a control character", "=YQpi", nil, []byte("x"), ""},
		{"a token that is not ASCII", "ünï", nil, []byte("x"), ""},
		{"a token of 3,900 bytes", long, nil, []byte("x"), ""},
		{"a token of 3,900 bytes and no body", "=" + long[1:], nil, nil, ""},
		{"the largest body under a bad token", "!", nil, big, ""},
		{"a deadline that is no time", "late", nats.Header{"Mulligan-Deadline": {"tomorrow"}}, []byte("x"), ""},
		{"a not-before that is no time", "early", nats.Header{"mulligan-not-before": {"soon"}}, []byte("x"), ""},
		{"another job's ID in a header", "one", nats.Header{"Mulligan-Id": {"two"}}, []byte("x"), ""},
		{"a user of 300 bytes", "user", nats.Header{"Mulligan-User": {long[:300]}}, []byte("x"), ""},
		{"a traceparent that is not text", "trace", nats.Header{"traceparent": {"a\xffb"}}, []byte("x"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &nats.Msg{Subject: mulligan.Subject(f.Topology.JobsRoot(), f.kind.Name, c.token), Header: c.header, Data: c.body}
			if _, err := f.JS.PublishMsg(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if c.runs == "" {
				f.malformed(t, c.token, c.body)
			} else {
				eventually(t, 20*time.Second, "it ran", func() bool { _, ran := got.of(c.runs); return ran })
				if body, _ := got.of(c.runs); !bytes.Equal(body, c.body) {
					t.Errorf("the handler got %d bytes, want the %d that were published", len(body), len(c.body))
				}
			}
			after := fmt.Sprint("after-", i)
			f.publish(t, mulligan.Job{ID: after})
			eventually(t, 20*time.Second, "the next job ran", func() bool { return len(f.runsOf(after)) == 1 })
		})
	}
	t.Run("one byte more than the largest body is refused", func(t *testing.T) {
		_, err := f.JS.Publish(t.Context(), mulligan.Subject(f.Topology.JobsRoot(), f.kind.Name, "over"), append(big, 0))
		var refused *jetstream.APIError
		if !errors.As(err, &refused) {
			t.Errorf("got %v, want to be told by the server", err)
		}
		if _, err := f.pub.Publish(t.Context(), mulligan.Job{Kind: f.kind.Name, ID: "over", Payload: append(big, 0)}); !errors.Is(err, mulligan.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
	})
	t.Run("headers that are none", func(t *testing.T) {
		for i, block := range []string{"NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0 503 odd\r\n\r\n", "NATS/1.0\r\nbad name: 1\r\n\r\n", "NATS/1.0\r\n: 1\r\n\r\n",
			"NATS/1.0\r\nNul: \x00\r\n\r\n", "NATS/1.0\r\nMulligan-Deadline : 1\r\n\r\n", "nonsense\r\n\r\n"} {
			f.raw(t, mulligan.Subject(f.Topology.JobsRoot(), f.kind.Name, fmt.Sprint("raw-", i)), block, "body")
		}
		streams{f.JS}.settled(t, time.Minute)
		letters, err := (&scheduler.Scheduler{Conn: f.Conn}).Letters(t.Context(), scheduler.Query{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 7 {
			id, dead := fmt.Sprint("raw-", i), mulligan.Reason("")
			for _, l := range letters {
				if l.ID == id {
					dead = l.Reason
				}
			}
			body, ran := got.of(id)
			if ran && string(body) != "body" || !ran && dead != mulligan.Malformed {
				t.Errorf("%s: ran %v with %q, letter %q; want it to run or end as malformed", id, ran, body, dead)
			}
		}
	})
}

// largest is how many bytes a job may have.
func (f *floor) largest(t *testing.T) int {
	t.Helper()
	s, err := f.JS.Stream(t.Context(), f.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	return int(s.CachedInfo().Config.MaxMsgSize)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// malformed waits for the letter of what is not a job, and checks it.
func (f *floor) malformed(t *testing.T, token string, body []byte) {
	t.Helper()
	s := &scheduler.Scheduler{Conn: f.Conn}
	var l mulligan.Letter
	eventually(t, 20*time.Second, "there is a letter", func() (there bool) {
		letters, err := s.Letters(t.Context(), scheduler.Query{Kind: f.kind.Name, Reason: mulligan.Malformed, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		there = len(letters) == 1 && letters[0].Token == token
		if there {
			l = letters[0]
		}
		return there
	})
	if !bytes.Equal(l.Payload, body) || l.Error == "" || l.Attempts != 0 {
		t.Errorf("the letter has %d bytes, the error %q and %d attempts; want the body as published and why it is no job", len(l.Payload), l.Error, l.Attempts)
	}
	again, err := s.Letter(t.Context(), f.kind.Name, l.ID)
	if err != nil || again.Seq != l.Seq {
		t.Errorf("by what the list calls it, the letter is %d, %v; want %d", again.Seq, err, l.Seq)
	}
	if _, err := s.Replay(t.Context(), f.kind.Name, l.ID); !errors.Is(err, scheduler.ErrNotReplayable) {
		t.Errorf("its replay: %v", err)
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

func TestTheLargestJobSurvivesBitForBit(t *testing.T) {
	t.Parallel()
	f := newFloor(t, mulligan.Kind{Name: "large.job", Effect: mulligan.Keyed, Policy: mulligan.Policy{Total: time.Minute}})
	replayed := make(chan struct{})
	var payload []byte
	f.work(t, &consumer.Worker{}, func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		if !bytes.Equal(job.Payload, payload) {
			t.Errorf("attempt %d of %s got other bytes: %d of them", job.Attempt, job.ID, len(job.Payload))
		}
		select {
		case <-replayed:
			return nil, nil
		default:
		}
		if job.Attempt == 1 {
			return nil, mulligan.After(2100*time.Millisecond, errAgain) // longer than a nak
		}
		return nil, mulligan.Permanent(errors.New(strings.Repeat("no ", 10_000)))
	})
	payload = random(f.largest(t))
	// Plain, since a publisher's headers take a part of the room.
	if _, err := f.JS.Publish(t.Context(), mulligan.Subject(f.Topology.JobsRoot(), f.kind.Name, "huge"), payload); err != nil {
		t.Fatal(err)
	}
	f.Accept(f.kind.Name, "huge")
	s := &scheduler.Scheduler{Conn: f.Conn}
	f.await(t, "huge", mulligan.StatusDead)
	l, err := s.Letter(t.Context(), f.kind.Name, "huge")
	if err != nil || !bytes.Equal(l.Payload, payload) || l.Reason != mulligan.PermanentFailure || len(l.History) != 2 {
		t.Fatalf("the letter has %d bytes, %s after %+v, %v", len(l.Payload), l.Reason, l.History, err)
	}
	if l.History[0].Verb != mulligan.Park {
		t.Errorf("it was not parked: %+v", l.History[0])
	}
	close(replayed)
	if _, err := s.Replay(t.Context(), f.kind.Name, "huge"); err != nil {
		t.Fatal(err)
	}
	f.await(t, "huge", mulligan.StatusDone)
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

func TestPublishedTwice(t *testing.T) {
	t.Parallel()
	for _, effect := range []mulligan.Effect{mulligan.Pure, mulligan.Keyed} {
		t.Run("a "+string(effect)+" job while it is queued", func(t *testing.T) {
			f := newFloor(t, mulligan.Kind{Name: "twice.job", Effect: effect})
			f.publish(t, mulligan.Job{ID: "a", Payload: []byte("x")})
			f.twice(t, "a", "x")
			f.Restart(t)
			f.twice(t, "a", "x")
			f.work(t, &consumer.Worker{}, func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil })
			streams{f.JS}.settled(t, 30*time.Second)
			if n := len(f.runsOf("a")); n != 1 {
				t.Errorf("it ran %d times, want once", n)
			}
		})
	}
	t.Run("a keyed job while its retry waits", func(t *testing.T) {
		f := newFloor(t, mulligan.Kind{Name: "twice.job", Effect: mulligan.Keyed, Policy: mulligan.Policy{Total: time.Minute}})
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
