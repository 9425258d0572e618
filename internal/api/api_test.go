package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func kinds() []mulligan.Kind {
	return []mulligan.Kind{{Name: "email.send", Effect: mulligan.Keyed}, {Name: "llm.complete", Effect: mulligan.Pure}}
}

// newServer returns a server over a topology that exists.
func newServer(t *testing.T, env *natstest.Env, top mulligan.Topology) *api.Server {
	t.Helper()
	env.Provision(t, top)
	return &api.Server{
		Publisher: &mulligan.Publisher{Conn: env.Conn, Kinds: kinds(), Topology: top},
		Conn:      env.Conn, Log: zerolog.New(zerolog.NewTestWriter(t)),
	}
}

func listen(t *testing.T, s *api.Server) string {
	t.Helper()
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return srv.URL
}

// A request is one to the server.
type request struct {
	method, path, body string
	header             map[string]string
}

type answer struct {
	status int
	header http.Header
	body   map[string]any
	text   string
}

func (r request) send(t *testing.T, base string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, base+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, text: string(b)}
	if strings.Contains(res.Header.Get("Content-Type"), "json") && len(b) > 0 {
		if err := json.Unmarshal(b, &a.body); err != nil {
			t.Fatalf("%s %s: %v in %s", r.method, r.path, err, b)
		}
	}
	return a
}

// wants fails the test unless the answer has the status and, as JSON, the
// fields; a problem must be a well-formed one.
func (a answer) wants(t *testing.T, status int, fields map[string]any) {
	t.Helper()
	if a.status != status {
		t.Fatalf("got status %d, want %d: %s", a.status, status, a.text)
	}
	for name, want := range fields {
		got, _ := json.Marshal(a.body[name])
		wanted, _ := json.Marshal(want)
		if string(got) != string(wanted) {
			t.Errorf("got %s %s, want %s in %s", name, got, wanted, a.text)
		}
	}
	if status < 400 || a.text == "" {
		return
	}
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("got content type %q for a problem: %s", ct, a.text)
	}
	if uri, _ := a.body["type"].(string); !strings.HasPrefix(uri, "/problems/") || a.body["title"] == "" || a.body["detail"] == "" || a.body["status"] != float64(status) {
		t.Errorf("not a whole problem: %s", a.text)
	}
	for _, inner := range []string{"nats:", "mulligan:", "API error", "goroutine"} {
		if strings.Contains(a.text, inner) {
			t.Errorf("%q is nobody's business: %s", inner, a.text)
		}
	}
}

func putRecord(t *testing.T, env *natstest.Env, top mulligan.Topology, key [2]string, r mulligan.Record) {
	t.Helper()
	kv, err := env.JS.KeyValue(t.Context(), top.LedgerBucket())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), mulligan.RecordKey(key[0], mulligan.Token(key[1])), r.Encode()); err != nil {
		t.Fatal(err)
	}
}

type fields = map[string]any

const email, llm = "/v1/jobs/email.send", "/v1/jobs/llm.complete"

func head(name, value string) map[string]string { return map[string]string{name: value} }

func key(k string) map[string]string { return head("Idempotency-Key", k) }

// A requestCase is a sentence about a job, in the form of a request.
type requestCase struct {
	name   string
	req    request
	status int
	want   fields
}

func runCases(t *testing.T, base string, cases []requestCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.send(t, base).wants(t, tt.status, tt.want)
		})
	}
}

func TestJobsAreAccepted(t *testing.T) {
	base := listen(t, newServer(t, natstest.Server(t), mulligan.Topology{}))
	runCases(t, base, []requestCase{
		{"a keyed job is accepted", request{"POST", email, "p1", key("order-1")}, 202, fields{"kind": "email.send", "id": "order-1", "duplicate": false}},
		{"published again it is a duplicate", request{"POST", email, "p1", key("order-1")}, 202, fields{"id": "order-1", "duplicate": true}},
		{"with another payload it is a conflict", request{"POST", email, "p2", key("order-1")}, 422, fields{"type": "/problems/key-conflict", "kind": "email.send", "id": "order-1"}},
		{"a job accepted is queued", request{"GET", email + "/order-1", "", nil}, 200, fields{"kind": "email.send", "id": "order-1", "state": "queued", "attempts": 0}},
		{"a key in quotes is the same key", request{"POST", email, "p1", key(`"order-1"`)}, 202, fields{"id": "order-1", "duplicate": true}},
		{"quotes may have escapes and parameters", request{"POST", email, "", key(`"a\"\\b";v=1`)}, 202, fields{"id": `a"\b`}},
		{"quotes inside a raw key stay", request{"POST", email, "", key(`a"b`)}, 202, fields{"id": `a"b`}},
		{"a raw key may be any text", request{"POST", email, "", key("größe 9")}, 202, fields{"id": "größe 9"}},
	})
}

func TestJobsAreRefused(t *testing.T) {
	base := listen(t, newServer(t, natstest.Server(t), mulligan.Topology{}))
	runCases(t, base, []requestCase{
		{"an open quote is refused", request{"POST", email, "", key(`"order-1`)}, 400, fields{"type": "/problems/bad-id"}},
		{"text after the quotes is refused", request{"POST", email, "", key(`"a"b`)}, 400, fields{"type": "/problems/bad-id"}},
		{"a strange escape is refused", request{"POST", email, "", key(`"a\n"`)}, 400, fields{"type": "/problems/bad-id"}},
		{"an empty key is refused", request{"POST", llm, "", key("")}, 400, fields{"type": "/problems/bad-id"}},
		{"an empty quoted key is refused", request{"POST", llm, "", key(`""`)}, 400, fields{"type": "/problems/bad-id"}},
		{"a key that is too long is refused", request{"POST", llm, "", key(strings.Repeat("k", 256))}, 400, fields{"type": "/problems/bad-id"}},
		{"a key that is not text is refused", request{"POST", llm, "", key("a\xff")}, 400, fields{"type": "/problems/bad-id"}},
		{"a keyed job needs a key", request{"POST", email, "", nil}, 400, fields{"type": "/problems/no-key"}},
		{"an unknown kind is refused", request{"POST", "/v1/jobs/no.such", "", key("1")}, 400, fields{"type": "/problems/unknown-kind", "kind": "no.such"}},
		{"what is no kind's name is refused", request{"POST", "/v1/jobs/a%20b", "", key("1")}, 400, fields{"type": "/problems/bad-kind"}},
		{"nor has it a state", request{"GET", "/v1/jobs/a..b/1", "", nil}, 400, fields{"type": "/problems/bad-kind"}},
		{"a deadline that is no time is refused", request{"POST", llm, "", head("Mulligan-Deadline", "soon")}, 400, fields{"type": "/problems/bad-job"}},
		{"a deadline that has passed is refused", request{"POST", llm, "", head("Mulligan-Deadline", "-1s")}, 400, fields{"type": "/problems/bad-job"}},
		{"a deadline beyond all bounds is refused", request{"POST", llm, "", head("Mulligan-Deadline", "2000h")}, 400, fields{"type": "/problems/bad-job"}},
		{"a start after the deadline is refused", request{"POST", llm, "", map[string]string{"Mulligan-Deadline": "1h", "Mulligan-Not-Before": "2h"}}, 400, fields{"type": "/problems/bad-job"}},
		{"a misspelt header is refused", request{"POST", llm, "", head("Mulligan-Deadlin", "1h")}, 400, fields{"type": "/problems/bad-job"}},
		{"a user that is not text is refused", request{"POST", llm, "", head("Mulligan-User", "a\xff")}, 400, fields{"type": "/problems/bad-job"}},
		{"a compressed body is refused", request{"POST", llm, "", head("Content-Encoding", "gzip")}, 415, fields{"type": "/problems/content-encoding"}},
		{"a payload over the largest message is refused", request{"POST", llm, strings.Repeat("x", 1<<20+1), nil}, 413, fields{"type": "/problems/too-large"}},
		{"so is one that could not be moved", request{"POST", llm, strings.Repeat("x", 1<<20-1), nil}, 413, fields{"type": "/problems/too-large"}},
		{"a page of another origin publishes nothing", request{"POST", llm, "", head("Sec-Fetch-Site", "cross-site")}, 403, fields{"type": "/problems/cross-origin"}},
	})
}

// withEndedKeys serves keys of email.send that have ended, each named after how.
func withEndedKeys(t *testing.T) (base string) {
	t.Helper()
	env := natstest.Server(t)
	var top mulligan.Topology
	base = listen(t, newServer(t, env, top))
	ended := func(id string, r mulligan.Record) {
		r.Payload = mulligan.FingerprintOf([]byte("same"))
		putRecord(t, env, top, [2]string{"email.send", id}, r)
	}
	ended("done-json", mulligan.Record{State: mulligan.Done, Attempts: 2, Result: mulligan.NewResult([]byte(`{"sent": "<1>"}`), time.Now())})
	ended("done-text", mulligan.Record{State: mulligan.Done, Result: mulligan.NewResult([]byte("sent <1>"), time.Now())})
	ended("done-bytes", mulligan.Record{State: mulligan.Done, Result: mulligan.NewResult([]byte{0xff, 0xfe}, time.Now())})
	ended("done-silent", mulligan.Record{State: mulligan.Done, Result: mulligan.NewResult(nil, time.Now())})
	ended("done-huge", mulligan.Record{State: mulligan.Done, Result: mulligan.NewResult(make([]byte, mulligan.DefaultMaxResult+1), time.Now()).Within(mulligan.DefaultMaxResult)})
	ended("dead", mulligan.Record{State: mulligan.Dead, Attempts: 4, Reason: mulligan.AttemptsExhausted,
		Move: &mulligan.Move{Verb: mulligan.Spend, ErrorType: "http_503", Error: "busy"}})
	ended("spent", mulligan.Record{State: mulligan.Spent, Reason: mulligan.PermanentFailure})
	ended("a/b", mulligan.Record{State: mulligan.Done})
	ended("ä b", mulligan.Record{State: mulligan.Done})
	ended("..", mulligan.Record{State: mulligan.Dead, Reason: mulligan.Expired})
	return base
}

func TestAnEndedKeyAnswersWhatBecameOfIt(t *testing.T) {
	base := withEndedKeys(t)
	runCases(t, base, []requestCase{
		{"a done job answers its result", request{"POST", email, "same", key("done-json")}, 200, fields{"state": "done", "duplicate": true, "result": fields{"sent": "<1>"}, "result_encoding": "json"}},
		{"a result of text is a string", request{"POST", email, "same", key("done-text")}, 200, fields{"result": "sent <1>", "result_encoding": "text"}},
		{"a result of bytes is base64", request{"POST", email, "same", key("done-bytes")}, 200, fields{"result": "//4=", "result_encoding": "base64"}},
		{"an empty result is left out", request{"POST", email, "same", key("done-silent")}, 200, fields{"state": "done", "result": nil}},
		{"a result too large to keep says so", request{"POST", email, "same", key("done-huge")}, 200, fields{"result": nil, "result_too_large": true, "result_size": mulligan.DefaultMaxResult + 1}},
		{"a done job with another payload is a conflict", request{"POST", email, "other", key("done-json")}, 422, fields{"type": "/problems/key-conflict"}},
		{"a dead job says why and where", request{"POST", email, "same", key("dead")}, 409, fields{"type": "/problems/job-ended", "state": "dead", "reason": "attempts_exhausted", "job": "/v1/jobs/email.send/dead"}},
		{"so does a spent one", request{"POST", email, "same", key("spent")}, 409, fields{"state": "spent", "reason": "permanent"}},
		{"a path of dots is escaped", request{"POST", email, "same", key("..")}, 409, fields{"job": "/v1/jobs/email.send/%2E%2E"}},
	})
}

func TestTheStateOfAJob(t *testing.T) {
	base := withEndedKeys(t)
	runCases(t, base, []requestCase{
		{"a dead job's state has reason and error", request{"GET", email + "/dead", "", nil}, 200, fields{"state": "dead", "attempts": 4, "reason": "attempts_exhausted", "error_type": "http_503", "error": "busy"}},
		{"a done job's state has the result", request{"GET", email + "/done-json", "", nil}, 200, fields{"state": "done", "attempts": 2, "result": fields{"sent": "<1>"}}},
		{"an ID with a slash", request{"GET", email + "/a%2Fb", "", nil}, 200, fields{"id": "a/b", "state": "done"}},
		{"an ID with an umlaut and a space", request{"GET", email + "/%C3%A4%20b", "", nil}, 200, fields{"id": "ä b", "state": "done"}},
		{"an ID of dots", request{"GET", email + "/%2E%2E", "", nil}, 200, fields{"id": "..", "state": "dead"}},
		{"an ID that cannot be", request{"GET", email + "/a%0Ab", "", nil}, 400, fields{"type": "/problems/bad-id"}},
		{"an unknown job", request{"GET", email + "/nobody", "", nil}, 404, fields{"type": "/problems/unknown-job", "kind": "email.send", "id": "nobody", "state": "unknown", "instance": "/v1/jobs/email.send/nobody"}},
		{"a head has no body", request{"HEAD", email + "/dead", "", nil}, 200, nil},
	})
}

func TestOtherPathsAndMethods(t *testing.T) {
	base := listen(t, newServer(t, natstest.Server(t), mulligan.Topology{}))
	runCases(t, base, []requestCase{
		{"no such version", request{"GET", "/v1", "", nil}, 404, fields{"type": "/problems/no-such-path"}},
		{"no such path", request{"GET", "/", "", nil}, 404, fields{"type": "/problems/no-such-path"}},
		{"a path with a slash too many", request{"POST", "//v1/jobs/email.send", "", nil}, 404, fields{"type": "/problems/no-such-path"}},
		{"a slash in an ID without escape", request{"GET", email + "/a/b", "", nil}, 404, fields{"type": "/problems/no-such-path"}},
		{"a head of nothing", request{"HEAD", "/nothing", "", nil}, 404, nil},
		{"metrics where there are none", request{"GET", "/metrics", "", nil}, 404, fields{"type": "/problems/no-such-path"}},
		{"a job cannot be deleted", request{"DELETE", email + "/dead", "", nil}, 405, fields{"type": "/problems/method-not-allowed"}},
		{"jobs are not listed", request{"GET", email, "", nil}, 405, fields{"type": "/problems/method-not-allowed"}},
	})
}

func TestAJobIsStoredAsTheRequestSaysIt(t *testing.T) {
	env := natstest.Server(t)
	var top mulligan.Topology
	base := listen(t, newServer(t, env, top))
	start := time.Now()
	a := request{"POST", "/v1/jobs/email.send", "\x00payload", map[string]string{
		"Idempotency-Key": "a/b", "Mulligan-User": "ada", "Mulligan-Task": "t1", "Mulligan-Deadline": "2h",
		"Mulligan-Not-Before": "2020-01-02T03:04:05+01:00", "Content-Type": "text/plain", "traceparent": "00-abc",
	}}.send(t, base)
	a.wants(t, 202, fields{"id": "a/b", "seq": 1})
	env.Accept("email.send", "a/b")
	if got, want := a.header.Get("Location"), "/v1/jobs/email.send/a%2Fb"; got != want {
		t.Errorf("got location %q, want %q", got, want)
	}
	request{"GET", a.header.Get("Location"), "", nil}.send(t, base).wants(t, 200, fields{"id": "a/b", "state": "queued"})

	e := storedJob(t, env, top, 1)
	if e.ID != "a/b" || e.User != "ada" || e.Task != "t1" || e.ContentType != "text/plain" || e.TraceParent != "00-abc" || string(e.Payload) != "\x00payload" {
		t.Errorf("got %+v", e.Job)
	}
	if d := e.Deadline.Sub(start); d < 2*time.Hour || d > 2*time.Hour+time.Minute {
		t.Errorf("got a deadline in %v, want 2h", d)
	}
	if want := time.Date(2020, 1, 2, 2, 4, 5, 0, time.UTC); !e.NotBefore.Equal(want) {
		t.Errorf("got not before %v, want %v", e.NotBefore, want)
	}
}

func TestAPureJobWithoutAKeyGetsOne(t *testing.T) {
	env := natstest.Server(t)
	var top mulligan.Topology
	base := listen(t, newServer(t, env, top))
	a := request{"POST", "/v1/jobs/llm.complete", "{}", nil}.send(t, base)
	a.wants(t, 202, fields{"duplicate": false})
	if id := a.body["id"]; id == "" || id != storedJob(t, env, top, 1).ID {
		t.Errorf("got id %v, want that of the stored job", id)
	}
}

func storedJob(t *testing.T, env *natstest.Env, top mulligan.Topology, seq uint64) mulligan.Envelope {
	t.Helper()
	s, err := env.JS.Stream(t.Context(), top.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.GetMsg(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	kind, token := mulligan.SplitSubject(top.JobsRoot(), raw.Subject)
	e, err := mulligan.OpenJob(kind, token, &nats.Msg{Header: raw.Header, Data: raw.Data}, raw.Time)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAFullStreamAsksToComeBack(t *testing.T) {
	env := natstest.Server(t)
	base := listen(t, newServer(t, env, mulligan.Topology{JobsMaxBytes: 1024}))
	post := request{"POST", "/v1/jobs/llm.complete", strings.Repeat("x", 700), nil}
	post.send(t, base).wants(t, 202, nil)
	a := post.send(t, base)
	a.wants(t, 503, fields{"type": "/problems/stream-full"})
	if a.header.Get("Retry-After") != "10" {
		t.Errorf("got Retry-After %q", a.header.Get("Retry-After"))
	}
}

func TestWithoutNATSJobsAskToComeBack(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	base := listen(t, s)
	lost := env.Conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING)
	request{"GET", "/readyz", "", nil}.send(t, base).wants(t, 200, fields{"status": "ready"})
	env.Down()
	<-lost
	for path, method := range map[string]string{"/v1/jobs/llm.complete": "POST", "/v1/jobs/llm.complete/1": "GET", "/readyz": "GET"} {
		a := request{method, path, "", nil}.send(t, base)
		a.wants(t, 503, nil)
		if a.header.Get("Retry-After") != "2" {
			t.Errorf("%s: got Retry-After %q", path, a.header.Get("Retry-After"))
		}
	}
	request{"POST", "/v1/jobs/no.such%21", "", nil}.send(t, base).wants(t, 400, fields{"type": "/problems/bad-kind"})
	request{"GET", "/healthz", "", nil}.send(t, base).wants(t, 200, fields{"status": "alive"})
	env.Restart(t)
	request{"POST", "/v1/jobs/llm.complete", "", nil}.send(t, base).wants(t, 202, nil)
}

func TestWithoutStreamsJobsAskToComeBack(t *testing.T) {
	env := natstest.Server(t)
	s := &api.Server{Conn: env.Conn, Publisher: &mulligan.Publisher{Conn: env.Conn, Kinds: kinds(), Topology: mulligan.Topology{Prefix: "absent"}}}
	a := request{"POST", "/v1/jobs/llm.complete", "", nil}.send(t, listen(t, s))
	a.wants(t, 503, fields{"type": "/problems/not-provisioned"})
	if a.header.Get("Retry-After") == "" {
		t.Error("got no Retry-After")
	}
}

func TestAServerSetUpWronglySaysSoInTheLogOnly(t *testing.T) {
	env := natstest.Server(t)
	var log strings.Builder
	s := &api.Server{Conn: env.Conn, Log: zerolog.New(&log), Publisher: &mulligan.Publisher{Conn: env.Conn, Kinds: []mulligan.Kind{{Name: "secret kind"}}}}
	a := request{"POST", "/v1/jobs/llm.complete", "", nil}.send(t, listen(t, s))
	a.wants(t, 500, fields{"type": "/problems/internal"})
	if strings.Contains(a.text, "secret") || !strings.Contains(log.String(), "secret kind") {
		t.Errorf("got answer %s and log %s", a.text, log.String())
	}
}

func TestAServerThatIsNotReadySaysWhy(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.Ready = func(context.Context) error { return errors.New("the worker has not started") }
	request{"GET", "/readyz", "", nil}.send(t, listen(t, s)).wants(t, 503, fields{"type": "/problems/not-ready", "detail": "the worker has not started"})
}

func TestATokenGuardsJobsAndMetrics(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.Token = "s3cret"
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "mulligan_test"}))
	s.Gatherer = reg
	base := listen(t, s)
	bearer := func(v string) map[string]string { return map[string]string{"Authorization": v} }
	tests := []struct {
		name, method, path string
		header             map[string]string
		status             int
	}{
		{"no token, no job", "POST", "/v1/jobs/llm.complete", nil, 401},
		{"nor its state", "GET", "/v1/jobs/llm.complete/1", nil, 401},
		{"nor what else is there", "GET", "/v1/letters", nil, 401},
		{"nor which methods are", "DELETE", "/v1/jobs/llm.complete", nil, 401},
		{"nor by an escaped path", "POST", "/%761/jobs/llm.complete", nil, 401},
		{"nor the metrics", "GET", "/metrics", nil, 401},
		{"a wrong token", "GET", "/metrics", bearer("Bearer s3cre"), 401},
		{"a token under another scheme", "GET", "/metrics", bearer("Basic s3cret"), 401},
		{"the token", "POST", "/v1/jobs/llm.complete", bearer("Bearer s3cret"), 202},
		{"a scheme in lower case", "GET", "/metrics", bearer("bearer s3cret"), 200},
		{"the process lives for all", "GET", "/healthz", nil, 200},
		{"and is ready", "GET", "/readyz", nil, 200},
		{"and has no more to show", "GET", "/else", nil, 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := request{tt.method, tt.path, "", tt.header}.send(t, base)
			a.wants(t, tt.status, nil)
			if asks := a.header.Get("WWW-Authenticate") == `Bearer realm="mulligan"`; asks != (tt.status == 401) {
				t.Errorf("got WWW-Authenticate %q", a.header.Get("WWW-Authenticate"))
			}
			if tt.path == "/metrics" && tt.status == 200 && !strings.Contains(a.text, "mulligan_test 0") {
				t.Errorf("got metrics %s", a.text)
			}
		})
	}
}
