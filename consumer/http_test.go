package consumer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// httpOutcome is a handler's error in words.
func httpOutcome(err error) string {
	var notStarted *mulligan.NotStartedError
	if errors.As(err, &notStarted) {
		return "not started, " + httpVerdict(err)
	}
	return httpVerdict(err)
}

func httpVerdict(err error) string {
	var (
		permanent *mulligan.PermanentError
		throttled *mulligan.ThrottledError
		changed   *mulligan.ChangedError
		unusable  *mulligan.UnusableError
		snooze    *mulligan.SnoozeError
		refused   *mulligan.CredentialError
	)
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &refused):
		return "credential"
	case errors.As(err, &unusable):
		return "unusable"
	case errors.As(err, &snooze):
		return "snooze " + snooze.Delay.String()
	case errors.As(err, &permanent):
		return "permanent"
	case errors.As(err, &changed):
		return "changed to " + string(changed.Payload)
	case errors.As(err, &throttled):
		return "after " + throttled.Delay.String()
	}
	return "transient"
}

func httpServer(t *testing.T, h http.HandlerFunc) *HTTPTarget {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &HTTPTarget{URL: s.URL + "/send"}
}

func TestHTTPEachStatusHasOneMeaning(t *testing.T) {
	t.Parallel()
	target := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.Header.Get("Mulligan-Id"))
		w.WriteHeader(status)
		if status >= 200 && status != 204 && status != 304 {
			_, _ = io.WriteString(w, "so\nit  is")
		}
	})
	for status := 101; status <= 999; status++ {
		if status == 102 {
			status = 200 // the server sends these ahead of an answer
		}
		want, wantType := "permanent", "http_"+strconv.Itoa(status)
		switch {
		case status >= 200 && status <= 299:
			want, wantType = "done", ""
		case status == 429, status == 503:
			want = "after 0s"
		case status == 401, status == 407:
			want = "credential"
		case status == 408, status == 409, status == 425, status >= 500 && status <= 599 && status != 501 && status != 505:
			want = "transient"
		case status >= 600:
			wantType = "http_other"
		}
		_, err := target.Handle(t.Context(), &mulligan.Job{Kind: "email.send", ID: strconv.Itoa(status)})
		if got := httpOutcome(err); got != want || mulligan.ErrorType(err) != wantType {
			t.Errorf("status %d: got %s and type %q, want %s and type %q", status, got, mulligan.ErrorType(err), want, wantType)
		}
		if err != nil && !strings.Contains(err.Error(), strconv.Itoa(status)) {
			t.Errorf("status %d: its error %q does not say so", status, err)
		}
	}
}

func TestHTTPAnswerDecidesTheOutcome(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	long := strings.Repeat("x", mulligan.MaxChanged+1)
	for _, c := range []struct {
		name    string
		status  int
		headers []string // name, value, …
		body    string
		want    string
		errType string
	}{
		{"a throttled job waits as long as it was told", 429, []string{"Retry-After", "7"}, "", "after 7s", "http_429"},
		{"an unavailable provider may name a date", 503, []string{"Retry-After", "Sun, 01 Mar 2026 12:00:30 GMT"}, "", "after 30s", "http_503"},
		{"a failed job waits as long as it was told", 500, []string{"Retry-After-Ms", "250"}, "", "after 250ms", "http_500"},
		{"a conflict may name a wait", 409, []string{"Retry-After", "2"}, "", "after 2s", "http_409"},
		{"a failed job that need not wait keeps the policy's delay", 500, []string{"Retry-After", "0"}, "", "transient", "http_500"},
		{"a wait that is garbage is ignored", 500, []string{"Retry-After", "soon"}, "", "transient", "http_500"},
		{"a refused job is not saved by a wait", 400, []string{"Retry-After", "2"}, "", "permanent", "http_400"},
		{"a job not implemented is not saved by a wait", 501, []string{"Retry-After", "2"}, "", "permanent", "http_501"},
		{"a redirect is not followed", 302, []string{"Location", "/other"}, "", "permanent", "redirect"},
		{"a redirect that keeps the method is not followed", 307, []string{"Location", "/other"}, "", "permanent", "redirect"},
		{"an answer not modified is no redirect", 304, nil, "", "permanent", "http_304"},
		{"a changed payload is tried", 422, []string{"Mulligan-Retry", "changed"}, "shorter", "changed to shorter", "http_422"},
		{"a change is asked for in any case", 422, []string{"Mulligan-Retry", " Changed "}, "shorter", "changed to shorter", "http_422"},
		{"a changed payload that is empty is none", 422, []string{"Mulligan-Retry", "changed"}, "", "permanent", "http_422"},
		{"a changed payload that is too large is refused", 422, []string{"Mulligan-Retry", "changed"}, long, "permanent", "http_422"},
		{"a job that cannot be processed is refused", 422, nil, "no", "permanent", "http_422"},
		{"another word than changed is refused", 422, []string{"Mulligan-Retry", "yes"}, "shorter", "permanent", "http_422"},
		{"a credential that is the job's own is its fault", 401, []string{"Mulligan-Outcome", "permanent"}, "", "permanent", "http_401"},
		{"only a 422 changes the payload", 400, []string{"Mulligan-Retry", "changed"}, "shorter", "permanent", "http_400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{}
			for i := 0; i < len(c.headers); i += 2 {
				h.Set(c.headers[i], c.headers[i+1])
			}
			err := httpMeaning(c.status, h, []byte(c.body), now)
			if got := httpOutcome(err); got != c.want || mulligan.ErrorType(err) != c.errType {
				t.Errorf("%d %v: got %s and type %q, want %s and type %q", c.status, h, got, mulligan.ErrorType(err), c.want, c.errType)
			}
		})
	}
}

func TestHTTPChangedPayloadWaitsToo(t *testing.T) {
	t.Parallel()
	err := httpMeaning(422, http.Header{"Mulligan-Retry": {"changed"}, "Retry-After": {"3"}}, []byte("shorter"), time.Now())
	var throttled *mulligan.ThrottledError
	if !errors.As(err, &throttled) || throttled.Delay != 3*time.Second || httpOutcome(err) != "changed to shorter" {
		t.Errorf("got %s with %+v, want a changed payload after 3s", httpOutcome(err), throttled)
	}
}

func TestHTTPErrorIsOneShortLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, body, want string }{
		{"without a body it is the status", "", "answered 500 Internal Server Error"},
		{"a body becomes one line", "  out\r\n\tof\x1b[31m memory\n", "answered 500 Internal Server Error: out of?[31m memory"},
		{"a body that is not text is shown as far as it is", "a\xffb", "answered 500 Internal Server Error: a?b"},
		{"a long body is cut", strings.Repeat("é", 500), "answered 500 Internal Server Error: " + strings.Repeat("é", 98) + "…"},
	} {
		if got := httpMeaning(500, nil, []byte(c.body), time.Now()).Error(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestHTTPRequestCarriesTheJob(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	target := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "result")
	})
	full := mulligan.Job{Kind: "email.send", ID: "order-42", User: "ada", Task: "trip", Payload: []byte(`{"a":1}`),
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Attempt: 2, AttemptsMax: 4}
	for _, c := range []struct {
		name    string
		change  func(j *mulligan.Job)
		headers map[string]string
		want    map[string]string // empty: absent
	}{
		{"every fact of the job arrives", func(*mulligan.Job) {}, nil, map[string]string{
			"Idempotency-Key": "email.send/order-42", "Mulligan-Kind": "email.send", "Mulligan-Id": "order-42", "Mulligan-Attempt": "2",
			"Mulligan-Attempts-Max": "4", "Mulligan-User": "ada", "Mulligan-Task": "trip", "Traceparent": full.TraceParent,
			"Content-Type": "application/json", "User-Agent": "mulligan", "Content-Length": "7"}},
		{"what the job does not have is absent", func(j *mulligan.Job) { j.User, j.Task, j.TraceParent = "", "", "" }, nil,
			map[string]string{"Mulligan-User": "", "Mulligan-Task": "", "Traceparent": ""}},
		{"an ID that does not fit a header comes as its token", func(j *mulligan.Job) { j.ID, j.User = "größe", "zoë" }, nil,
			map[string]string{"Mulligan-Id": mulligan.Token("größe"), "Mulligan-User": mulligan.Token("zoë"), "Idempotency-Key": "email.send/" + mulligan.Token("größe")}},
		{"an ID with a line break cannot add a header", func(j *mulligan.Job) { j.ID = "a\r\nX: y" }, nil, map[string]string{"Mulligan-Id": mulligan.Token("a\r\nX: y"), "X": ""}},
		{"an ID with a space fits a header", func(j *mulligan.Job) { j.ID = "order 42" }, nil, map[string]string{"Mulligan-Id": "order 42"}},
		{"an ID that looks like a token is not taken for one", func(j *mulligan.Job) { j.ID = "=b3JkZXI" }, nil, map[string]string{"Mulligan-Id": mulligan.Token("=b3JkZXI")}},
		{"the job's content type goes along", func(j *mulligan.Job) { j.ContentType = "text/csv" }, nil, map[string]string{"Content-Type": "text/csv"}},
		{"a content type that begins or ends with a space is none", func(j *mulligan.Job) { j.ContentType = "text/csv " }, nil, map[string]string{"Content-Type": "application/json"}},
		{"a payload that is not JSON is bytes", func(j *mulligan.Job) { j.Payload = []byte("{") }, nil, map[string]string{"Content-Type": "application/octet-stream"}},
		{"an empty payload is a body of no bytes", func(j *mulligan.Job) { j.Payload = nil }, nil,
			map[string]string{"Content-Type": "application/octet-stream", "Content-Length": "0"}},
		{"a trace that is none is left out", func(j *mulligan.Job) { j.TraceParent = "00-\r\nX: y" }, nil, map[string]string{"Traceparent": "", "X": ""}},
		{"the URL's user comes as basic authentication", func(*mulligan.Job) {}, nil, map[string]string{"Authorization": "Basic YWRhOnNlY3JldA=="}},
		{"a configured authorization goes over the URL's", func(*mulligan.Job) {}, map[string]string{"authorization": "Bearer t"}, map[string]string{"Authorization": "Bearer t"}},
		{"configured headers come on top", func(*mulligan.Job) {},
			map[string]string{"x-team": "mail", "Content-Type": "application/cloudevents+json", "Host": "mail.example", "traceparent": "mine", "User-Agent": "us"},
			map[string]string{"X-Team": "mail", "Content-Type": "application/cloudevents+json", "Host": "mail.example", "Traceparent": "mine", "User-Agent": "us"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := full
			c.change(&job)
			target := &HTTPTarget{URL: strings.Replace(target.URL, "://", "://ada:secret@", 1), Headers: c.headers}
			if err := target.Validate(); err != nil {
				t.Fatal(err)
			}
			before := full
			before.User, before.Task = "before", "before"
			if _, err := target.Handle(t.Context(), &before); err != nil { // leaves nothing behind
				t.Fatal(err)
			}
			result, err := target.Handle(t.Context(), &job)
			if err != nil || string(result) != "result" || string(body) != string(job.Payload) {
				t.Fatalf("got result %q, error %v and body %q, want result, none and %q", result, err, body, job.Payload)
			}
			if got.Method != http.MethodPost || got.URL.Path != "/send" {
				t.Errorf("got %s %s, want POST /send", got.Method, got.URL.Path)
			}
			arrived := got.Header.Clone()
			arrived.Set("Host", got.Host)
			arrived.Set("Content-Length", strconv.FormatInt(got.ContentLength, 10))
			for name, want := range c.want {
				if values := arrived.Values(name); strings.Join(values, "|") != want {
					t.Errorf("header %s: got %q, want %q", name, values, want)
				}
			}
		})
	}
}

func TestHTTPResultIsRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		size, want int
	}{
		{"an empty answer is an empty result", 0, 0},
		{"a result that is too large to record is still done", mulligan.DefaultMaxResult + 1, mulligan.DefaultMaxResult + 1},
		{"a result without end is still done", httpBody + 1000, httpBody},
	} {
		target := httpServer(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", c.size))
		})
		result, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: "1"})
		if err != nil || len(result) != c.want {
			t.Errorf("%s: got %d bytes and %v, want %d bytes", c.name, len(result), err, c.want)
		}
	}
}

func TestHTTPRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Int32
	target := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/send" {
			followed.Add(1)
			return
		}
		w.Header().Set("Location", r.Header.Get("Mulligan-Id"))
		w.WriteHeader(http.StatusFound)
	})
	for _, where := range []string{"/other", "http://[bad", "%zz"} {
		_, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: where})
		if httpOutcome(err) != "permanent" || mulligan.ErrorType(err) != "redirect" || !strings.Contains(err.Error(), where) {
			t.Errorf("a redirect to %q: got %v, want a permanent one that names it", where, err)
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("%d redirects were followed, want none", n)
	}
}

// httpReset ends the connection as a process that dies does.
func httpReset(t *testing.T, w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

func TestHTTPCallWithoutAnAnswerIsTriedAgain(t *testing.T) {
	t.Parallel()
	const closed = "127.0.0.1:1" // below all that servers of tests are given
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	behaviour := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.Header.Get("Mulligan-Id") {
		case "reset":
			httpReset(t, w)
		case "hang-up":
			conn, _, _ := w.(http.Hijacker).Hijack()
			_ = conn.Close()
		case "cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			httpReset(t, w)
		case "slow":
			<-r.Context().Done()
		case "slow-body":
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "garbage":
			conn, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(conn, "hello\r\n\r\n")
			_ = conn.Close()
		}
	})
	for _, c := range []struct{ name, url, id, want, errType string }{
		{"nobody listens", "http://" + closed, "1", "not started, transient", "refused"},
		{"the provider dies with the job", behaviour.URL, "reset", "transient", "reset"},
		{"the provider hangs up without a word", behaviour.URL, "hang-up", "transient", "reset"},
		{"the result breaks off", behaviour.URL, "cut", "transient", "reset"},
		{"the provider takes too long", behaviour.URL, "slow", "transient", "timeout"},
		{"the result takes too long", behaviour.URL, "slow-body", "transient", "timeout"},
		{"the answer is not HTTP", behaviour.URL, "garbage", "transient", "no_answer"},
		{"the provider does not speak TLS", "https" + strings.TrimPrefix(plain.URL, "http"), "1", "not started, permanent", "tls"},
		{"the provider's certificate is not known", secure.URL, "1", "not started, permanent", "tls"},
		{"the URL is none", "mailer:9000", "1", "permanent", "bad_target"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := &HTTPTarget{URL: c.url, Timeout: 2 * time.Second}
			if c.errType == "timeout" {
				target.Timeout = 500 * time.Millisecond // the connection must stand by then
			}
			result, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: c.id, Payload: []byte("x")})
			if result != nil || httpOutcome(err) != c.want || mulligan.ErrorType(err) != c.errType {
				t.Errorf("got %q, %s of type %q (%v), want %s of type %q", result, httpOutcome(err), mulligan.ErrorType(err), err, c.want, c.errType)
			}
		})
	}
}

func TestHTTPNoAnswerIsNamed(t *testing.T) {
	t.Parallel()
	dns := &net.DNSError{Err: "no such host", Name: "nowhere", IsNotFound: true}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"a name that does not resolve", &net.OpError{Op: "dial", Err: dns}, "dns"},
		{"a name that does not resolve in time", fmt.Errorf("%w: %w", context.DeadlineExceeded, dns), "timeout"},
		{"a connection the server had closed", errors.New("http: server closed idle connection"), "reset"},
		{"anything else", errors.New("strange"), "no_answer"},
	} {
		err := httpNoAnswer(t.Context(), "mailer", c.err)
		if got := mulligan.ErrorType(err); got != c.want || httpOutcome(err) != "transient" {
			t.Errorf("%s: got %q and %s, want %q and transient", c.name, got, httpOutcome(err), c.want)
		}
	}
}

// A transport posts again by itself what has an idempotency key and an old
// connection: a retry that no record would show.
func TestHTTPOneAttemptIsOneCall(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	target := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.HasPrefix(r.Header.Get("Mulligan-Id"), "die") {
			calls.Add(1)
			httpReset(t, w)
		}
	})
	for i, payload := range []string{"payload", ""} {
		if _, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: "fine", Payload: []byte(payload)}); err != nil {
			t.Fatal(err)
		}
		_, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: "die-" + strconv.Itoa(i), Payload: []byte(payload)})
		if n := calls.Swap(0); n != 1 || mulligan.ErrorType(err) != "reset" || httpOutcome(err) != "transient" {
			t.Errorf("payload %q on an old connection: %d calls and %s (%v), want one call and a reset that is transient", payload, n, httpOutcome(err), err)
		}
	}
}

func TestHTTPShutdownIsNoTimeout(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	target := httpServer(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel(errors.New("shutting down"))
		<-r.Context().Done()
	})
	_, err := target.Handle(ctx, &mulligan.Job{Kind: "k", ID: "1"})
	if !errors.Is(err, context.Canceled) || mulligan.ErrorType(err) != "canceled" {
		t.Errorf("got %v of type %q, want canceled", err, mulligan.ErrorType(err))
	}
}

func TestHTTPConnectionsAreKept(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.Header.Get("Mulligan-Id"))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	target := &HTTPTarget{URL: s.URL}
	for _, status := range []string{"200", "503", "400", "302", "200"} {
		_, _ = target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: status})
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for five jobs in turn, want 1", n)
	}
}
