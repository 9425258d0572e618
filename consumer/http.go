package consumer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// An HTTPTarget is a handler in any language: it posts the job to a URL, and the
// answer says what became of it, by its status:
//
//   - 2xx: done, the body is the result.
//   - 429 and 503: throttled.
//   - 401 and 407: the credential was refused; see [mulligan.RefusedCredential].
//   - 408, 409, 425, other 5xx but 501 and 505, and no answer at all (refused,
//     reset, timeout, a name that does not resolve): tried again.
//   - 422 with the header Mulligan-Retry: changed and a body: tried again with
//     that body as the payload.
//   - everything else: permanent. A redirect is never followed.
//
// An answer of any status may say its outcome itself, with the header
// Mulligan-Outcome, which goes over the status:
//
//   - done: the body is the result.
//   - transient: tried again.
//   - changed: tried again with the body, which must not be empty, as the
//     payload; see [mulligan.Changed].
//   - not-started: tried again; see [mulligan.NotStarted].
//   - snooze: runs again after the Retry-After; see [mulligan.Snooze].
//   - permanent, unusable: see [mulligan.Permanent] and [mulligan.Unusable].
//
// Case and space around the word do not matter. At any other word the status
// decides, and the error's text says so.
//
// A Retry-After (seconds or a date) or Retry-After-Ms is honoured on every
// answer after which the job runs again. A Mulligan-Error-Type names the type of
// the error, by the rule of [mulligan.Typed], instead of http_503 and the like.
//
// A call that was never given a connection (refused, unreachable, no such name,
// a TLS handshake that failed, the time over before that) is
// [mulligan.NotStarted]: nothing of it was sent. One that broke later is not.
//
// The job arrives as the body, with the headers Idempotency-Key (the same at
// every attempt), Mulligan-Kind, Mulligan-Id, Mulligan-Attempt,
// Mulligan-Attempts-Max, Mulligan-User, Mulligan-Task and traceparent. An ID,
// user or task that is not printable ASCII comes in the form of
// [mulligan.Token].
//
// Its fields must not change after the first call; it is safe for concurrent
// use.
type HTTPTarget struct {
	// URL is where to post: absolute, http or https.
	URL string
	// Timeout bounds one call, its answer's body included; zero means ten
	// seconds.
	Timeout time.Duration
	// Headers are added to each request, over its own: they can replace the content
	// type, but not Idempotency-Key or the Mulligan headers.
	Headers map[string]string

	once      sync.Once
	call      http.Request // what all requests have in common
	bad       error
	transport *http.Transport
}

const (
	httpTimeout = 10 * time.Second
	httpIdle    = 256     // connections kept open: as many as one downstream may have slots
	httpBody    = 1 << 20 // of an answer's body, what is read
	httpExcerpt = 200     // of an answer's body, what its error shows
)

var httpHeaderName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// Validate reports, as an error that says what to do, why t cannot be called.
func (t *HTTPTarget) Validate() error {
	u, err := url.Parse(t.URL)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("http url %.120q is not absolute, such as http://127.0.0.1:9000/send", t.URL)
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || port == 0) {
		return fmt.Errorf("http url port %.20s is not between 1 and 65535", u.Port())
	}
	if t.Timeout < 0 {
		return fmt.Errorf("http timeout %v is negative; leave it out for %v", t.Timeout, httpTimeout)
	}
	seen := map[string]bool{}
	for name, value := range t.Headers {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !httpHeaderName.MatchString(name):
			return fmt.Errorf("http header %.80q is not a header's name", name)
		case canonical == "Idempotency-Key", canonical == "X-Idempotency-Key", strings.HasPrefix(canonical, "Mulligan-"):
			return fmt.Errorf("http header %.80s is written by mulligan; leave it out", name)
		case canonical == "Content-Length", canonical == "Transfer-Encoding", canonical == "Trailer":
			return fmt.Errorf("http header %s follows from the payload; leave it out", name)
		case seen[canonical]:
			return fmt.Errorf("http header %.80s is set twice; keep one", canonical)
		case value != "" && !httpPrintable(value):
			return fmt.Errorf("http header %.80s has a value that is not printable ASCII, or begins or ends with a space", name)
		}
		seen[canonical] = true
	}
	return nil
}

// Downstream is the host of the URL, with its port if it names one: the
// downstream of a kind that is given no other. An IPv6 address is written so
// that it is a downstream's name.
func (t *HTTPTarget) Downstream() string {
	u, err := url.Parse(t.URL)
	if err != nil {
		return ""
	}
	host := strings.ToLower(u.Host)
	if strings.HasPrefix(host, "[") {
		return "ipv6:" + strings.NewReplacer("[", "", "]", "", "%", "-").Replace(host)
	}
	return host
}

// Handle posts the job.
func (t *HTTPTarget) Handle(ctx context.Context, job *mulligan.Job) ([]byte, error) {
	t.once.Do(t.open)
	if t.bad != nil {
		return nil, mulligan.Permanent(mulligan.Typed("bad_target", t.bad))
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout())
	defer cancel()
	// The transport itself, since a client follows redirects: a 302 would turn
	// the POST into a GET whose 200 looks like success.
	var wire httpWire
	resp, err := t.transport.RoundTrip(t.request(wire.watch(ctx), job))
	if err != nil {
		return nil, wire.failed(httpNoAnswer(ctx, t.call.URL.Host, err))
	}
	defer func() { _ = resp.Body.Close() }()
	return httpAnswered(ctx, t.call.URL.Host, resp)
}

func (t *HTTPTarget) timeout() time.Duration {
	if t.Timeout == 0 {
		return httpTimeout
	}
	return t.Timeout
}

func (t *HTTPTarget) open() {
	if t.bad = t.Validate(); t.bad != nil {
		return
	}
	t.call.Method, t.call.Header = http.MethodPost, http.Header{"User-Agent": {"mulligan"}}
	if t.call.URL, t.bad = url.Parse(t.URL); t.bad != nil {
		return
	}
	t.call.Host = t.call.URL.Host
	if u := t.call.URL.User; u != nil {
		password, _ := u.Password()
		t.call.SetBasicAuth(u.Username(), password)
	}
	for name, value := range t.Headers {
		if http.CanonicalHeaderKey(name) == "Host" {
			t.call.Host = value
			continue
		}
		t.call.Header.Set(name, value)
	}
	t.transport = &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// The transport goes on dialing when the call is over, for the next one:
		// without these, for ever if the other side takes connections and is silent.
		DialContext:            (&net.Dialer{Timeout: t.timeout()}).DialContext,
		TLSHandshakeTimeout:    t.timeout(),
		MaxIdleConnsPerHost:    httpIdle,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
}

func (t *HTTPTarget) request(ctx context.Context, job *mulligan.Job) *http.Request {
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(job.Payload)), nil }
	req := t.call.WithContext(ctx)
	req.Header, req.ContentLength, req.GetBody = t.header(job), int64(len(job.Payload)), body
	req.Body, _ = body() // cannot fail
	if len(job.Payload) == 0 {
		req.Body = http.NoBody
	}
	return req
}

// header is that of a job: its own, and over it those that all requests have.
func (t *HTTPTarget) header(job *mulligan.Job) http.Header {
	trace := job.TraceParent
	if !httpPrintable(trace) {
		trace = ""
	}
	own := [...]struct{ name, value string }{
		{"Content-Type", httpContentType(job)},
		// In lower case on purpose. When a connection breaks, Go's transport posts
		// again by itself whatever has an "Idempotency-Key", a retry that no record
		// would show; it does not look for this spelling, and servers read both.
		{"idempotency-key", job.Key()},
		{"Mulligan-Kind", httpText(job.Kind)},
		{"Mulligan-Id", httpText(job.ID)},
		{"Mulligan-User", httpText(job.User)},
		{"Mulligan-Task", httpText(job.Task)},
		{"Mulligan-Attempt", strconv.Itoa(job.Attempt)},
		{"Mulligan-Attempts-Max", strconv.Itoa(job.AttemptsMax)},
		{"Traceparent", trace},
	}
	h := http.Header{}
	values := make([]string, len(own))
	for i, f := range own {
		if f.value != "" {
			values[i] = f.value
			h[f.name] = values[i : i+1 : i+1]
		}
	}
	maps.Copy(h, t.call.Header)
	return h
}

// httpText is s as a header's value: itself if it is printable ASCII and does
// not look like the encoded form, else its token; nothing stays nothing.
func httpText(s string) string {
	if s == "" || httpPrintable(s) && !strings.HasPrefix(s, "=") {
		return s
	}
	return mulligan.Token(s)
}

// httpPrintable reports whether s is some printable ASCII that neither begins nor
// ends with a space.
func httpPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && s[0] != ' ' && s[len(s)-1] != ' '
}

func httpContentType(job *mulligan.Job) string {
	switch {
	case httpPrintable(job.ContentType):
		return job.ContentType
	case json.Valid(job.Payload):
		return "application/json"
	}
	return "application/octet-stream"
}
