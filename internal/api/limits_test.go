package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// dial opens a connection that ends with the test.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// answered reads the answer that a connection is given.
func answered(t *testing.T, c net.Conn) (*http.Response, string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(2 * patience))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body) // one that is cut off is known by its text
	return res, string(b)
}

// calm waits until no more runs than before.
func calm(t *testing.T, before int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); runtime.NumGoroutine() > before; {
		select {
		case <-tick.C:
		case <-deadline:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, want the %d of before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestWhatIsTooLargeIsRefusedAndSaysSo(t *testing.T) {
	env := natstest.Server(t)
	addr, _, _ := serve(t, newServer(t, env, mulligan.Topology{}))
	const post = "POST /v1/jobs/llm.complete HTTP/1.1\r\nHost: h\r\n"
	chunk := "10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n"
	for _, tt := range []struct {
		name, request string
		status        int
		problem       string // empty: refused by net/http, in plain text
	}{
		{"a path", "GET /v1/jobs/llm.complete/" + strings.Repeat("a", 4096) + " HTTP/1.1\r\nHost: h\r\n\r\n", 414, "long-path"},
		{"a query", "GET /v1/jobs/llm.complete/a?wait=" + strings.Repeat("1", 4096) + " HTTP/1.1\r\nHost: h\r\n\r\n", 414, "long-path"},
		{"a path that is refused anyway", "GET /" + strings.Repeat("../", 2000) + " HTTP/1.1\r\nHost: h\r\n\r\n", 414, "long-path"},
		{"a hundred and one header lines", post + strings.Repeat("X: y\r\n", 101) + "\r\n", 431, "large-header"},
		{"a header of 33 KiB", post + "X: " + strings.Repeat("y", 33<<10) + "\r\n\r\n", 431, "large-header"},
		{"ten thousand header lines", post + strings.Repeat("X-Header: y\r\n", 10_000) + "\r\n", 431, ""},
		{"a header without an end", post + "X: " + strings.Repeat("y", 1<<20), 431, ""},
		{"a payload that says its size", post + fmt.Sprintf("Content-Length: %d\r\n\r\n", 1<<30) + strings.Repeat("x", 2<<20), 413, "too-large"},
		{"a payload without an end", post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat(chunk, 20), 413, "too-large"},
		{"a payload that compresses well", post + "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 415, "content-encoding"},
		{"a user", post + "Mulligan-User: " + strings.Repeat("u", 256) + "\r\n\r\n", 400, "bad-job"},
		{"a key", post + "Idempotency-Key: " + strings.Repeat("k", 256) + "\r\n\r\n", 400, "bad-id"},
		{"a kind", "POST /v1/jobs/" + strings.Repeat("k", 129) + " HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad-kind"},
		{"a deadline of ages", post + "Mulligan-Deadline: 9999-12-31T23:59:59Z\r\n\r\n", 400, "bad-job"},
		{"a wait for ages", "GET /v1/jobs/llm.complete/a?wait=87600h HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad-wait"},
		{"what is not HTTP", "\x16\x03\x01\x02\x00\r\n\r\n", 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, addr)
			go func() { _, _ = io.WriteString(c, tt.request) }() // it is refused before all was sent
			res, body := answered(t, c)
			if res.StatusCode != tt.status || strings.Count(strings.TrimSpace(body), "\n") > 0 || len(body) > 2<<10 {
				t.Fatalf("got status %d, want %d and one line: %.300q", res.StatusCode, tt.status, body)
			}
			json := res.Header.Get("Content-Type") == "application/problem+json"
			if json != (tt.problem != "") || json && !strings.Contains(body, `"/problems/`+tt.problem+`"`) {
				t.Errorf("got %s: %.300q; want the problem %q", res.Header.Get("Content-Type"), body, tt.problem)
			}
		})
	}
	if n := env.Account(t).Held(); n != 0 {
		t.Errorf("%d jobs were stored, want none", n)
	}
}

// A body counts what is read of it.
type body struct {
	io.Reader
	read int
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read += n
	return n, err
}

func (b *body) Close() error { return nil }

// A connection that is closed while its client writes may be reset before the
// client has read why.
func TestABodyThatIsRefusedIsReadSoThatTheAnswerArrives(t *testing.T) {
	h := newServer(t, natstest.Server(t), mulligan.Topology{}).Handler()
	const size = 700 << 10 // more than what net/http reads after an answer
	for _, tt := range []struct {
		name   string
		says   int64 // its length
		expect string
		read   int
	}{
		{"all of it is read", size, "", size},
		{"as much as it says is too much to read", 1 << 30, "", 0},
		{"whoever asks before sending it need not send it", size, "100-continue", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &body{Reader: strings.NewReader(strings.Repeat("x", size))}
			r := httptest.NewRequest("POST", "/v1/jobs/no..kind", b)
			r.ContentLength = tt.says
			r.Header.Set("Expect", tt.expect)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 400 || b.read != tt.read {
				t.Errorf("got %d after %d bytes, want 400 after %d", w.Code, b.read, tt.read)
			}
		})
	}
}

// A payload is nobody's business but the handler's.
func TestAPayloadOfAHundredThousandBracketsIsAJob(t *testing.T) {
	env := natstest.Server(t)
	base := listen(t, newServer(t, env, mulligan.Topology{}))
	request{"POST", "/v1/jobs/llm.complete", strings.Repeat("[", 100_000), nil}.send(t, base).wants(t, 202, nil)
}

func TestManySlowRequestsHoldNobodyUpAndLeaveNothingBehind(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.ReadTimeout = time.Second
	addr, _, _ := serve(t, s)
	request{"POST", "/v1/jobs/llm.complete", "before", nil}.send(t, "http://"+addr).wants(t, 202, nil)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	before := runtime.NumGoroutine()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	cut := make(chan bool, 400)
	for i := range cap(cut) {
		head := "POST /v1/jobs/llm.complete HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n"
		if i%2 == 0 {
			head += "\r\n" // it is the body that comes slowly
		}
		c := dial(t, addr)
		all.Go(func() { cut <- drip(ctx, c, head) })
	}
	request{"POST", "/v1/jobs/llm.complete", "meanwhile", nil}.send(t, "http://"+addr).wants(t, 202, nil)
	for i := range cap(cut) {
		select {
		case was := <-cut:
			if !was {
				t.Fatal("a slow connection ended by itself")
			}
		case <-time.After(patience):
			t.Fatalf("only %d of %d slow connections were closed", i, cap(cut))
		}
	}
	all.Wait()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	calm(t, before)
}

// drip sends the head and then a byte now and then, and reports whether the
// server ended that.
func drip(ctx context.Context, c net.Conn, head string) (cut bool) {
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, head); err != nil {
		return true
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, c) // until the server closes it
		close(ended)
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return true
		case <-ctx.Done():
			return false
		case <-tick.C:
			if _, err := io.WriteString(c, "x"); err != nil {
				<-ended
				return true
			}
		}
	}
}

func TestAClientThatNeverReadsIsCutOff(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.ReadTimeout, s.AnswerTimeout = 200*time.Millisecond, 100*time.Millisecond
	result := mulligan.NewResult([]byte(strings.Repeat("r", mulligan.DefaultMaxResult)), time.Now())
	addr, _, _ := serve(t, s)
	putRecord(t, env, mulligan.Topology{}, [2]string{"email.send", "a"}, mulligan.Record{State: mulligan.Done, Result: result})
	request{"GET", "/v1/jobs/email.send/a", "", nil}.send(t, "http://"+addr).wants(t, 200, nil)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	before := runtime.NumGoroutine()
	c := dial(t, addr)
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	_ = c.SetWriteDeadline(time.Now().Add(2 * patience))
	for {
		_, err := io.WriteString(c, "GET /v1/jobs/email.send/a HTTP/1.1\r\nHost: h\r\n\r\n")
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Fatal("it may still send requests")
		}
		if err != nil {
			break
		}
	}
	calm(t, before)
}

func TestConnectionsWithoutARequestKeepNobodyOut(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.MaxConnections = 50
	addr, _, _ := serve(t, s)
	var idle []net.Conn
	for i := range 2 * s.MaxConnections { // of which half were never asked anything
		c := dial(t, addr)
		if i%2 == 0 {
			get(t, c, "/healthz", 200)
		}
		idle = append(idle, c)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		c := dial(t, addr)
		_ = c.SetDeadline(time.Now().Add(patience))
		get(t, c, path, 200)
	}
	get(t, idle[len(idle)-2], "/healthz", 200) // among the last ones, which are left alone
}

func TestWhoeverComesWhenAllConnectionsHaveARequestWaitsForOne(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.MaxConnections = 2
	addr, _, _ := serve(t, s)
	first, r := begin(t, addr, 7)
	_, _ = begin(t, addr, 7)
	third := dial(t, addr)
	if _, err := io.WriteString(third, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = third.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := third.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a third connection was served beside two")
	}
	if _, err := io.WriteString(first, "payload"); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 202 {
		t.Fatalf("got %v, %v; want the first request answered", res, err)
	}
	if res, body := answered(t, third); res.StatusCode != 200 {
		t.Errorf("got %d: %s", res.StatusCode, body)
	}
}

// get asks for a path on a connection, which stays open.
func get(t *testing.T, c net.Conn, path string, want int) {
	t.Helper()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if res, body := answered(t, c); res.StatusCode != want {
		t.Fatalf("%s: got %d: %s", path, res.StatusCode, body)
	}
}

func TestAServerWithoutAPlaceForAConnectionEnds(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.MaxConnections, s.ReadTimeout = 1, time.Second
	addr, cancel, ended := serve(t, s)
	_, _ = begin(t, addr, 7)
	waits := dial(t, addr)
	cancel()
	_ = waits.SetReadDeadline(time.Now().Add(2 * patience))
	if n, err := waits.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("it was served by a server that ends")
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTooManyRequestsAtNATSAreToldToComeBack(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.MaxRequests = 1
	asked, release := make(chan struct{}), make(chan struct{})
	s.Ready = func(context.Context) error {
		close(asked)
		<-release
		return nil
	}
	base := listen(t, s)
	ready := make(chan answer, 1)
	go func() { ready <- request{"GET", "/readyz", "", nil}.send(t, base) }()
	<-asked
	for _, r := range []request{
		{"POST", "/v1/jobs/llm.complete", "1", nil},
		{"GET", "/v1/jobs/llm.complete/1", "", nil},
	} {
		a := r.send(t, base)
		a.wants(t, 503, map[string]any{"type": "/problems/busy"})
		if a.header.Get("Retry-After") == "" || strings.Contains(a.text, "stored") != (r.method == "POST") {
			t.Errorf("got Retry-After %q: %s", a.header.Get("Retry-After"), a.text)
		}
	}
	request{"GET", "/healthz", "", nil}.send(t, base).wants(t, 200, nil)
	close(release)
	(<-ready).wants(t, 200, nil)
	request{"POST", "/v1/jobs/llm.complete", "1", nil}.send(t, base).wants(t, 202, nil)
}

func TestPayloadsInHandHaveABoundTogether(t *testing.T) {
	env := natstest.Server(t)
	addr, _, _ := serve(t, newServer(t, env, mulligan.Topology{}))
	const part, fit = 255_999, 128 << 20 / 255_999 // bytes that are sent of a payload, and how many of these fit
	sent := make([]byte, part)
	hold := func() net.Conn {
		c := dial(t, addr)
		if _, err := fmt.Fprintf(c, "POST /v1/jobs/llm.complete HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", part+1); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(sent) // it may be refused by now
		return c
	}
	publish := func() answer {
		return request{"POST", "/v1/jobs/llm.complete", strings.Repeat("x", 200<<10), nil}.send(t, "http://"+addr)
	}
	var held []net.Conn
	var a answer
	// Those that arrive together may all be refused, and leave room for others.
	for a.status != 503 && len(held) < 3*fit {
		held = append(held, hold())
		if len(held) >= fit {
			a = publish()
		}
	}
	a.wants(t, 503, map[string]any{"type": "/problems/busy"})
	if a.header.Get("Retry-After") == "" {
		t.Error("it is not said when to come back")
	}
	for _, c := range held {
		_ = c.Close()
	}
	for deadline := time.Now().Add(patience); publish().status != 202; {
		if time.Now().After(deadline) {
			t.Fatal("all have gone, and their room is not free")
		}
	}
}
