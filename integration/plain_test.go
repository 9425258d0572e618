package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// house is a worker and a scheduler in a bubble, and what their handler saw.
type house struct {
	*natstest.Env
	kind  mulligan.Kind
	pub   *mulligan.Publisher
	sched *scheduler.Scheduler

	mu   sync.Mutex
	runs map[string]int
	last map[string][]byte
}

func inHouse(t *testing.T, kind mulligan.Kind, h mulligan.HandlerFunc, do func(t *testing.T, w *house)) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		w := &house{Env: e, kind: kind, runs: map[string]int{}, last: map[string][]byte{},
			pub: &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}}, sched: &scheduler.Scheduler{Conn: e.Conn}}
		worker := &consumer.Worker{Conn: e.Conn}
		worker.Handle(kind, mulligan.HandlerFunc(func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			w.mu.Lock()
			w.runs[j.ID]++
			w.last[j.ID] = bytes.Clone(j.Payload)
			w.mu.Unlock()
			return h(ctx, j)
		}))
		ctx, end := context.WithCancel(t.Context())
		var procs sync.WaitGroup
		for _, run := range []func(context.Context) error{worker.Run, w.sched.Run} {
			procs.Go(func() {
				if err := run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		do(t, w)
		end()
		procs.Wait()
	})
}

func (w *house) ran(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[id]
}

var plain = mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}

func TestAStrangersMessageRunsOrIsBuriedAsMalformedAndStopsNobody(t *testing.T) {
	ok := func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }
	inHouse(t, plain, ok, func(t *testing.T, w *house) {
		jobs, err := w.JS.Stream(t.Context(), mulligan.Topology{}.JobsStream())
		if err != nil {
			t.Fatal(err)
		}
		most := int(jobs.CachedInfo().Config.MaxMsgSize)
		for i, tt := range []struct {
			name   string
			token  string
			header nats.Header
			body   []byte
			runs   string // the ID under which it runs; empty for a letter
		}{
			{"a subject and a body are a job", "plain", nil, []byte("hello"), "plain"},
			{"no body is a body", "empty", nil, nil, "empty"},
			{"the most the stream takes", "most", nil, make([]byte, most), "most"},
			{"an encoded ID", mulligan.Token("a b/ü"), nil, nil, "a b/ü"},
			{"headers of another case", "case", nats.Header{"mulligan-user": {"ada"}, "MULLIGAN-TASK": {"t"}}, nil, "case"},
			{"a token that is no base64", "=%%%", nil, nil, ""},
			{"a token of strange letters", "ö", nil, nil, ""},
			{"a token that is far too long", strings.Repeat("x", 3900), nil, nil, ""},
			{"a deadline that is no time", "deadline", nats.Header{"Mulligan-Deadline": {"tomorrow"}}, nil, ""},
			{"a user that is far too long", "user", nats.Header{"Mulligan-User": {strings.Repeat("u", 5000)}}, nil, ""},
			{"an empty body and the server's own header", "status", nats.Header{"Status": {"404"}}, nil, ""},
			{"a body and the server's own header", "status-body", nats.Header{"Status": {"404"}}, []byte("x"), "status-body"},
			{"an ID that is not the subject's", "mine", nats.Header{"Mulligan-Id": {"yours"}}, nil, ""},
			{"facts that only workers write", "facts", nats.Header{"Mulligan-Reason": {"crashed"}, "Mulligan-Published": {"x"}, "Mulligan-Attempts": {"-1"}}, nil, "facts"},
		} {
			m := &nats.Msg{Subject: mulligan.Subject(mulligan.Topology{}.JobsRoot(), plain.Name, tt.token), Header: tt.header, Data: tt.body}
			if _, err := w.JS.PublishMsg(t.Context(), m); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			time.Sleep(5 * time.Second)
			if c := w.Account(t); c.Held() != 0 {
				t.Errorf("%s: %+v", tt.name, c)
			}
			if tt.runs != "" {
				if w.ran(tt.runs) != 1 || !bytes.Equal(w.last[tt.runs], tt.body) {
					t.Errorf("%s: ran %d times with %d bytes, want once with %d", tt.name, w.ran(tt.runs), len(w.last[tt.runs]), len(tt.body))
				}
				continue
			}
			l, err := w.sched.Letter(t.Context(), plain.Name, tt.token)
			if err != nil || l.Reason != mulligan.Malformed || l.Error == "" || !bytes.Equal(l.Payload, tt.body) {
				t.Errorf("%s (%d): letter %s %q, %v; want it malformed", tt.name, i, l.Reason, l.Error, err)
			}
			if _, err := w.sched.Replay(t.Context(), plain.Name, tt.token); !errors.Is(err, scheduler.ErrNotReplayable) {
				t.Errorf("%s: replay: %v", tt.name, err)
			}
		}
		over := &nats.Msg{Subject: mulligan.Subject(mulligan.Topology{}.JobsRoot(), plain.Name, "over"), Data: make([]byte, most+1)}
		var api *jetstream.APIError
		if _, err := w.JS.PublishMsg(t.Context(), over); !errors.As(err, &api) {
			t.Errorf("one byte more than the stream takes: %v", err)
		}
		if _, err := w.pub.Publish(t.Context(), mulligan.Job{Kind: plain.Name, ID: "after"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if w.ran("after") != 1 {
			t.Error("the worker stands still")
		}
	})
}

func TestALargestJobSurvivesParkBurialAndReplayBitForBit(t *testing.T) {
	kind := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}
	healed := false
	fails := func(_ context.Context, j *mulligan.Job) ([]byte, error) {
		switch {
		case healed:
			return []byte("done"), nil
		case j.Attempt == 1:
			return nil, mulligan.After(3*time.Second, errors.New("parked, please")) // with a long delay it is parked
		}
		return nil, mulligan.Permanent(errors.New("no"))
	}
	inHouse(t, kind, fails, func(t *testing.T, w *house) {
		body := make([]byte, w.Conn.MaxPayload())
		for i := range body {
			body[i] = byte(i * 7 >> 3)
		}
		job := mulligan.Job{Kind: kind.Name, ID: "the largest, with an encoded ID", User: "ada", Task: "t", ContentType: "application/octet-stream", Header: nats.Header{"X-Team": {"mail"}}}
		size := largest(t, w.pub, job, body)
		job.Payload = body[:size]
		if _, err := w.pub.Publish(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		l, err := w.sched.Letter(t.Context(), kind.Name, job.ID)
		if err != nil || !bytes.Equal(l.Payload, job.Payload) || l.Attempts != 2 || l.Header.Get("X-Team") != "mail" {
			t.Fatalf("letter of %d attempts with %d bytes, %v", l.Attempts, len(l.Payload), err)
		}
		healed = true
		if _, err := w.sched.Replay(t.Context(), kind.Name, job.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if st, err := w.pub.Status(t.Context(), kind.Name, job.ID); err != nil || st.State != mulligan.StatusDone || !bytes.Equal(w.last[job.ID], job.Payload) {
			t.Errorf("job is %s, %v", st.State, err)
		}
		t.Logf("%d bytes", size)
	})
}

// largest is the size of the largest payload that job can have.
func largest(t *testing.T, pub *mulligan.Publisher, job mulligan.Job, body []byte) int {
	t.Helper()
	job.Payload = body
	_, err := pub.Publish(t.Context(), job)
	var over, limit int
	if _, scan := fmt.Sscanf(fmt.Sprint(err), "mulligan: payload too large: %d bytes with headers, the limit is %d", &over, &limit); scan != nil {
		t.Fatalf("%v: %v", err, scan)
	}
	return len(body) - (over - limit)
}

func TestAJobPublishedTwiceRunsOnceAlsoAfterARestart(t *testing.T) {
	for _, effect := range []mulligan.Effect{mulligan.Pure, mulligan.Keyed} {
		kind := mulligan.Kind{Name: "job." + string(effect), Effect: effect}
		slow := func(context.Context, *mulligan.Job) ([]byte, error) {
			time.Sleep(8 * time.Second)
			return []byte("result"), nil
		}
		t.Run(string(effect), func(t *testing.T) {
			inHouse(t, kind, slow, func(t *testing.T, w *house) {
				job := mulligan.Job{Kind: kind.Name, ID: "x", Payload: []byte("p")}
				publish := func() mulligan.Receipt {
					t.Helper()
					r, err := w.pub.Publish(t.Context(), job)
					if err != nil {
						t.Fatal(err)
					}
					return r
				}
				publish()
				if r := publish(); !r.Duplicate || r.Seq != 1 {
					t.Errorf("at once: %+v", r)
				}
				time.Sleep(time.Second)
				w.Restart(t) // forgets the IDs of what it has acknowledged, not what is stored
				if r := publish(); !r.Duplicate {
					t.Errorf("after a restart: %+v", r)
				}
				time.Sleep(time.Minute)
				if w.ran("x") != 1 {
					t.Errorf("ran %d times", w.ran("x"))
				}
				if r := publish(); effect == mulligan.Keyed && (r.State != mulligan.Done || string(r.Result.Data) != "result") {
					t.Errorf("once done: %+v", r)
				}
			})
		})
	}
}
