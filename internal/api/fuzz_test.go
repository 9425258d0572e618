package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// requests are what a stranger may send: each is one or more, or the beginning
// of one.
func requests() []string {
	const host = " HTTP/1.1\r\nHost: h\r\n"
	post := func(path, header, body string) string {
		return "POST " + path + host + header + "\r\n" + body
	}
	return []string{
		post("/v1/jobs/llm.complete", "Content-Length: 2\r\n", "{}"),
		post("/v1/jobs/email.send", "Idempotency-Key: \"a \\\"b\\\"\";x\r\nMulligan-User: ada\r\nContent-Length: 1\r\n", "1"),
		post("/v1/jobs/email.send", "Idempotency-Key: \xc3\xa9\r\nMulligan-Task: t\r\nMulligan-Task-Retries: 3\r\nMulligan-Deadline: 90s\r\nMulligan-Not-Before: 1s\r\n", ""),
		post("/v1/jobs/email.send", "Mulligan-Deadline: 9999-12-31T23:59:59Z\r\n", ""),
		post("/v1/jobs/email.send", "Mulligan-Deadlin: 1s\r\n", ""),
		post("/v1/jobs/llm.complete", "Transfer-Encoding: chunked\r\nTraceparent: \x01\r\n", "3\r\nabc\r\n0\r\n\r\n"), // garbage in a header
		post("/v1/jobs/llm.complete", "Content-Length: 9\r\nExpect: 100-continue\r\n", "short"),                       // a body that ends early
		post("/v1/jobs/llm.complete", "Content-Encoding: gzip\r\nContent-Length: 1\r\n", "x"),
		post("/v1/jobs/llm.complete", "Origin: http://evil\r\nSec-Fetch-Site: cross-site\r\n", ""),
		"GET /v1/jobs/email.send/done?wait=1ms" + host + "\r\nGET /v1/jobs/email.send/%2F%00" + host + "\r\n", // two, pipelined
		"GET /v1/jobs/email.send/..%2f?wait=1ms&wait=2ms;" + host + "\r\n",
		"HEAD /healthz" + host + "\r\n", "GET /readyz" + host + "\r\n", "GET /metrics" + host + "Accept-Encoding: gzip\r\n\r\n",
		"DELETE /v1/jobs/a/b" + host + "\r\n", "GET //v1/../metrics" + host + "\r\n", "OPTIONS *" + host + "\r\n", "CONNECT h:1" + host + "\r\n",
		"GET /v1/jobs/email.send/" + strings.Repeat("a", 5000) + host + "\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", // what HTTP/2 begins with
		"GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01", "",
	}
}

// FuzzHTTP sends bytes to a real server and reads what it says until it hangs
// up.
func FuzzHTTP(f *testing.F) {
	for _, r := range requests() {
		f.Add([]byte(r))
	}
	env := natstest.Server(f)
	top := mulligan.Topology{JobsMaxBytes: 16 << 20}
	env.Provision(f, top)
	s := &api.Server{Publisher: &mulligan.Publisher{Conn: env.Conn, Kinds: kinds(), Topology: top}, Conn: env.Conn,
		Gatherer: prometheus.NewRegistry(), ReadTimeout: 2 * time.Second, Log: zerolog.Nop()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	ctx := f.Context() // not within, where f is not to be used
	go func() { _ = s.Serve(ctx, l) }()
	jobs, err := env.JS.Stream(ctx, top.JobsStream())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		for _, a := range exchange(t, l.Addr().String(), sent) {
			a.check(t)
			if a.StatusCode == http.StatusAccepted {
				checkStored(t, jobs, a)
			}
		}
	})
}

// said is an answer with its body.
type said struct {
	*http.Response
	body []byte
}

// exchange sends bytes and returns all answers to them.
func exchange(t *testing.T, addr string, sent []byte) (all []said) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	go func() {
		_, _ = c.Write(sent) // the server may hang up before
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	_ = c.SetReadDeadline(time.Now().Add(2 * patience))
	r := bufio.NewReader(c)
	for {
		var asked *http.Request
		if bytes.HasPrefix(sent, []byte("HEAD ")) {
			asked = &http.Request{Method: http.MethodHead} // its answer has no body
		}
		res, err := http.ReadResponse(r, asked)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			t.Fatalf("the server does not hang up on %q", sent)
		}
		if err != nil {
			return all
		}
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusContinue {
			all = append(all, said{res, body})
		}
		if asked != nil || bytes.Contains(sent, []byte("HEAD ")) {
			return all // of those behind it the reader cannot tell which have a body
		}
	}
}

// check checks what every answer is: of a status that is documented, one line,
// and JSON or net/http's own text.
func (a said) check(t *testing.T) {
	t.Helper()
	allowed := []int{200, 202, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 417, 422, 431, 501, 503, 505}
	if !slices.Contains(allowed, a.StatusCode) {
		t.Errorf("got status %d: %.500q", a.StatusCode, a.body)
	}
	for name, values := range a.Header {
		if strings.ContainsFunc(strings.Join(values, ""), unicode.IsControl) {
			t.Errorf("header %s: %q", name, values)
		}
	}
	switch kind := a.Header.Get("Content-Type"); {
	case len(a.body) == 0 || strings.HasPrefix(kind, "text/plain"):
	case kind == "application/json", kind == "application/problem+json":
		text := strings.TrimSuffix(string(a.body), "\n")
		if !json.Valid(a.body) || strings.ContainsFunc(text, unicode.IsControl) || len(text) > 16<<10 {
			t.Errorf("got %d bytes: %.500q", len(text), a.body)
		}
	default:
		t.Errorf("got content type %q: %.500q", kind, a.body)
	}
	if a.StatusCode == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
		t.Errorf("503 without a Retry-After: %.500q", a.body)
	}
}

// checkStored checks that what was accepted is a job that a worker can read,
// under the ID that the answer says, and takes it out.
func checkStored(t *testing.T, jobs jetstream.Stream, a said) {
	t.Helper()
	var receipt struct {
		Kind, ID string
		Seq      uint64
	}
	if err := json.Unmarshal(a.body, &receipt); err != nil || receipt.Seq == 0 {
		return // a duplicate of one that was taken out
	}
	m, err := jobs.GetMsg(t.Context(), receipt.Seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return // so is this
	}
	if err != nil {
		t.Fatal(err)
	}
	kind, token := mulligan.SplitSubject(mulligan.Topology{}.JobsRoot(), m.Subject)
	e, err := mulligan.OpenJob(kind, token, &nats.Msg{Header: m.Header, Data: m.Data}, m.Time)
	if err != nil || e.Kind != receipt.Kind || e.ID != receipt.ID {
		t.Errorf("%s %q was accepted and reads as %s %q, %v", receipt.Kind, receipt.ID, e.Kind, e.ID, err)
	}
	if err := jobs.DeleteMsg(t.Context(), receipt.Seq); err != nil {
		t.Error(err)
	}
}
