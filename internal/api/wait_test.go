package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

const patience = 10 * time.Second

// waits asks for a job, and waits for its end; the answer is nil if ctx ends first.
func waits(ctx context.Context, t *testing.T, url string) <-chan *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan *http.Response, 1)
	go func() {
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			res = nil
		}
		answered <- res
	}()
	return answered
}

// state is what an answer says that the job is, and its status.
func state(t *testing.T, answered <-chan *http.Response) (int, string) {
	t.Helper()
	select {
	case res := <-answered:
		if res == nil {
			t.Fatal("the request was cut off")
		}
		defer func() { _ = res.Body.Close() }()
		var v api.JobView
		if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, v.State
	case <-time.After(patience):
		t.Fatal("the request is not answered")
	}
	return 0, ""
}

// taken returns once one request more waits than before: it listens for changes.
func taken(t *testing.T, env *natstest.Env, before int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); env.Conn.NumSubscriptions() <= before; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no request waits after %v", patience)
		}
	}
}

// free asks until a place is free.
func free(t *testing.T, base string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		a := request{"GET", email + "/a?wait=1ms", "", nil}.send(t, base)
		if a.status == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got status %d for %v, want 200", a.status, patience)
		}
	}
}

func TestARequestWaitsForTheEndOfAJob(t *testing.T) {
	env := natstest.Server(t)
	var top mulligan.Topology
	base := listen(t, newServer(t, env, top))
	request{"POST", email, "p", key("a")}.send(t, base).wants(t, 202, nil)
	runCases(t, base, []requestCase{
		{"a job that does not end in time is as it is", request{"GET", email + "/a?wait=30ms", "", nil}, 200, fields{"state": "queued"}},
		{"no time is not waited for", request{"GET", email + "/a?wait=0s", "", nil}, 200, fields{"state": "queued"}},
		{"a job of which nothing is known is not waited for", request{"GET", email + "/b?wait=50s", "", nil}, 404, fields{"type": "/problems/unknown-job"}},
		{"a time without a unit is refused", request{"GET", email + "/a?wait=10", "", nil}, 400, fields{"type": "/problems/bad-wait"}},
		{"so is none", request{"GET", email + "/a?wait", "", nil}, 400, fields{"type": "/problems/bad-wait"}},
		{"so is more than a minute", request{"GET", email + "/a?wait=61s", "", nil}, 400, fields{"type": "/problems/bad-wait"}},
		{"so is less than nothing", request{"GET", email + "/a?wait=-1s", "", nil}, 400, fields{"type": "/problems/bad-wait"}},
		{"so are two times", request{"GET", email + "/a?wait=1s&wait=2s", "", nil}, 400, fields{"type": "/problems/bad-wait"}},
	})
	answered := waits(t.Context(), t, base+email+"/a?wait=50s")
	putRecord(t, env, top, [2]string{"email.send", "a"}, mulligan.Record{State: mulligan.Done, Payload: mulligan.FingerprintOf([]byte("p"))})
	if status, state := state(t, answered); status != 200 || state != "done" {
		t.Errorf("a job that ends meanwhile: got %d %s, want 200 done", status, state)
	}
}

func TestAFewRequestsWaitAtOnceAndOneThatGoesLeavesItsPlace(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.MaxWaiting = 1
	base := listen(t, s)
	request{"POST", email, "p", key("a")}.send(t, base).wants(t, 202, nil)
	ctx, leave := context.WithCancel(t.Context())
	before := env.Conn.NumSubscriptions()
	answered := waits(ctx, t, base+email+"/a?wait=50s")
	taken(t, env, before)
	a := request{"GET", email + "/a?wait=1ms", "", nil}.send(t, base)
	a.wants(t, 503, fields{"type": "/problems/too-many-waiting"})
	if a.header.Get("Retry-After") == "" {
		t.Error("got no Retry-After")
	}
	request{"GET", email + "/a", "", nil}.send(t, base).wants(t, 200, fields{"state": "queued"})
	leave()
	if res := <-answered; res != nil {
		t.Errorf("got status %d for a client that went away", res.StatusCode)
	}
	free(t, base)
}

func TestTheTimeToReadARequestDoesNotEndItsWait(t *testing.T) {
	s := newServer(t, natstest.Server(t), mulligan.Topology{})
	s.ReadTimeout = 100 * time.Millisecond
	addr, _, _ := serve(t, s)
	request{"POST", email, "p", key("a")}.send(t, "http://"+addr).wants(t, 202, nil)
	start := time.Now()
	if status, state := state(t, waits(t.Context(), t, "http://"+addr+email+"/a?wait=600ms")); status != 200 || state != "queued" || time.Since(start) < 600*time.Millisecond {
		t.Errorf("got %d %s after %v, want 200 queued after 600ms", status, state, time.Since(start))
	}
}

func TestWhoWaitsIsAnsweredAtShutdown(t *testing.T) {
	env := natstest.Server(t)
	addr, cancel, ended := serve(t, newServer(t, env, mulligan.Topology{}))
	request{"POST", email, "p", key("a")}.send(t, "http://"+addr).wants(t, 202, nil)
	before := env.Conn.NumSubscriptions()
	answered := waits(t.Context(), t, "http://"+addr+email+"/a?wait=50s")
	taken(t, env, before)
	cancel()
	if status, state := state(t, answered); status != 200 || state != "queued" {
		t.Errorf("got %d %s, want 200 queued", status, state)
	}
	if err := <-ended; err != nil {
		t.Errorf("got %v from a clean shutdown", err)
	}
}

func TestWithoutNATSAQuestionSaysNothingOfStoring(t *testing.T) {
	env := natstest.Server(t)
	base := listen(t, newServer(t, env, mulligan.Topology{}))
	lost := env.Conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING)
	env.Down()
	<-lost
	for _, path := range []string{email + "/a", email + "/a?wait=1s"} {
		a := request{"GET", path, "", nil}.send(t, base)
		a.wants(t, 503, fields{"type": "/problems/unavailable"})
		if strings.Contains(a.text, "stored") {
			t.Errorf("%s: a question stores nothing: %s", path, a.text)
		}
	}
	request{"POST", email, "p", key("a")}.send(t, base).wants(t, 503, fields{"detail": "NATS cannot be reached; nothing was stored"})
}
