package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestWatchLineTellsOneEvent(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 30, 5, 40_000_000, time.UTC)
	for _, c := range []struct {
		event mulligan.Event
		want  string
	}{
		{mulligan.Event{Event: "retry", Kind: "email.send", ID: "order-k3x9qa-16", Attempt: 1, Verb: mulligan.Nak, Delay: 123456 * time.Microsecond, ErrorType: "http_500"},
			"12:30:05.040  RETRY      email.send      order-k3x9qa-16             1    http_500, again in 123ms"},
		{mulligan.Event{Event: "recovered", Kind: "email.send", ID: "order-k3x9qa-16", Attempt: 2, ErrorType: "http_500"},
			"12:30:05.040  RECOVERED  email.send      order-k3x9qa-16             2    after http_500"},
		{mulligan.Event{Event: "recovered", Kind: "email.send", ID: "order-k3x9qa-16"},
			"12:30:05.040  RECOVERED  email.send      order-k3x9qa-16"},
		{mulligan.Event{Event: "deferred", Kind: "llm.complete", ID: "prompt-k3x9qa-17", Attempt: 1, Reason: mulligan.UserBudget, ErrorType: "timeout", Delay: 3 * time.Second},
			"12:30:05.040  DEFERRED   llm.complete    prompt-k3x9qa-17            1    user_budget: timeout, again in 3s"},
		{mulligan.Event{Event: "spent", Kind: "email.send", ID: "order-1", Attempt: 1, Reason: mulligan.PermanentFailure, ErrorType: "http_400"},
			"12:30:05.040  SPENT      email.send      order-1                     1    permanent: http_400"},
		{mulligan.Event{Event: "dead", Kind: "email.send", ID: "order-1", Attempt: 4, Reason: mulligan.AttemptsExhausted},
			"12:30:05.040  DEAD       email.send      order-1                     4    attempts_exhausted"},
		{mulligan.Event{Event: "replayed", Kind: "email.send", ID: "order-1"},
			"12:30:05.040  REPLAYED   email.send      order-1"},
		{mulligan.Event{Event: "retry", Kind: "a.kind.with.a.long.name", ID: "an-id-that-is-longer-than-its-column", Attempt: 12, Delay: time.Second},
			"12:30:05.040  RETRY      a.kind.with.a…  an-id-that-is-longer-than…  12   again in 1s"},
		{mulligan.Event{Event: "dead", Kind: "k", ID: "\x1b[2J\n", Reason: mulligan.Malformed},
			"12:30:05.040  DEAD       k               ?[2J?                            malformed"},
	} {
		c.event.At = at
		if got := line(c.event); got != c.want {
			t.Errorf("event %+v:\ngot  %s\nwant %s", c.event, got, c.want)
		}
	}
	if got, want := headings(), "time          what       kind            id                          try  why"; got != want {
		t.Errorf("headings:\ngot  %s\nwant %s", got, want)
	}
}

func TestWatchPrintsWhatHappens(t *testing.T) {
	t.Parallel()
	env := natstest.Server(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, env.Conn, env.Topology, w, 0)
		_ = w.Close()
	}()
	lines := bufio.NewScanner(r)
	next := func() string {
		lines.Scan()
		return lines.Text()
	}
	if got := next(); got != headings() {
		t.Fatalf("got %q first, want the headings", got)
	}
	at := time.Now()
	for _, event := range []string{"retry", "retry", "recovered", "deferred", "spent", "dead", "replayed"} {
		e := mulligan.Event{At: at, Event: event, Kind: Send, ID: "order-1"}
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		subject := mulligan.Subject(env.Topology.EventsRoot(), e.Kind, e.ID)
		for _, data := range [][]byte{[]byte("garbage"), b} {
			if err := env.Conn.Publish(subject, data); err != nil {
				t.Fatal(err)
			}
		}
		if got := next(); !strings.HasPrefix(got, at.Format("15:04:05.000")) || !strings.Contains(got, strings.ToUpper(event)) {
			t.Errorf("got %q, want a line about %s", got, event)
		}
	}
	cancel()
	if got, want := next(), "so far: 2 retries, 1 deferred, 1 replayed; of 2 jobs that failed and ended, 1 recovered and 1 are dead"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := <-ended; err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

func TestWatchSummarisesNowAndThen(t *testing.T) {
	t.Parallel()
	env := natstest.Server(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(Watch(ctx, env.Conn, env.Topology, w, 5*time.Millisecond)) }()
	lines := bufio.NewScanner(r)
	for n := 0; n < 3 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "so far: 0 retries") {
			n++
		}
	}
	cancel()
	_, _ = io.Copy(io.Discard, r)
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
}
