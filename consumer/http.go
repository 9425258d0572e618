package consumer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// An HTTPTarget is a handler in any language: it posts the job to a URL, and the
// answer's status says what became of it.
//
//   - 2xx: done, the body is the result.
//   - 429 and 503: throttled.
//   - 408, 409, 425, other 5xx but 501 and 505, and no answer at all (refused,
//     reset, timeout, a name that does not resolve): tried again.
//   - 422 with the header Mulligan-Retry: changed and a body: tried again with
//     that body as the payload.
//   - everything else: permanent. A redirect is never followed.
//
// A Retry-After (seconds or a date) or Retry-After-Ms is honoured on every
// answer that is tried again.
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
	// Headers are added to each request, on top of the content type. They
	// cannot replace Idempotency-Key or the Mulligan headers.
	Headers map[string]string

	once      sync.Once
	url       *url.URL
	bad       error
	transport *http.Transport
}

const (
	httpTimeout = 10 * time.Second
	httpIdle    = 256     // connections kept open: as many as one downstream may have slots
	httpBody    = 1 << 20 // of an answer's body, what is read
	httpExcerpt = 200     // of an answer's body, what its error shows
)

var (
	httpHeaderName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	httpPrintable  = regexp.MustCompile(`^[!-~]([ -~]*[!-~])?$`)
)

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
		case value != "" && !httpPrintable.MatchString(value):
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
	timeout := t.Timeout
	if timeout == 0 {
		timeout = httpTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The transport itself, since a client follows redirects: a 302 would turn
	// the POST into a GET whose 200 looks like success.
	resp, err := t.transport.RoundTrip(t.request(ctx, job))
	if err != nil {
		return nil, httpNoAnswer(ctx, t.url.Host, err)
	}
	defer func() { _ = resp.Body.Close() }()
	return httpAnswered(ctx, t.url.Host, resp)
}

func (t *HTTPTarget) open() {
	if t.bad = t.Validate(); t.bad != nil {
		return
	}
	t.url, t.bad = url.Parse(t.URL)
	t.transport = &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		MaxIdleConnsPerHost:    httpIdle,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
}

func (t *HTTPTarget) request(ctx context.Context, job *mulligan.Job) *http.Request {
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(job.Payload)), nil }
	req := &http.Request{
		Method: http.MethodPost, URL: t.url, Host: t.url.Host, Header: t.header(job),
		ContentLength: int64(len(job.Payload)), GetBody: body,
	}
	req.Body, _ = body() // cannot fail
	if len(job.Payload) == 0 {
		req.Body = http.NoBody
	}
	if u := t.url.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	for name, value := range t.Headers {
		if http.CanonicalHeaderKey(name) == "Host" {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	return req.WithContext(ctx)
}

func (t *HTTPTarget) header(job *mulligan.Job) http.Header {
	h := http.Header{"User-Agent": {"mulligan"}, "Content-Type": {httpContentType(job)}}
	// In lower case on purpose. When a connection breaks, Go's transport posts
	// again by itself whatever has an "Idempotency-Key", a retry that no record
	// would show; it does not look for this spelling, and servers read both.
	h["idempotency-key"] = []string{job.Key()}
	for name, value := range map[string]string{
		"Mulligan-Kind": job.Kind, "Mulligan-Id": job.ID, "Mulligan-User": job.User, "Mulligan-Task": job.Task,
	} {
		if value != "" {
			h.Set(name, httpText(value))
		}
	}
	h.Set("Mulligan-Attempt", strconv.Itoa(job.Attempt))
	h.Set("Mulligan-Attempts-Max", strconv.Itoa(job.AttemptsMax))
	if httpPrintable.MatchString(job.TraceParent) {
		h.Set("Traceparent", job.TraceParent)
	}
	return h
}

// httpText is s as a header's value: itself if it is printable ASCII and does
// not look like the encoded form, else its token.
func httpText(s string) string {
	if httpPrintable.MatchString(s) && !strings.HasPrefix(s, "=") {
		return s
	}
	return mulligan.Token(s)
}

func httpContentType(job *mulligan.Job) string {
	switch {
	case httpPrintable.MatchString(job.ContentType):
		return job.ContentType
	case json.Valid(job.Payload):
		return "application/json"
	}
	return "application/octet-stream"
}

// httpAnswered reads the answer's body and says what the answer means.
func httpAnswered(ctx context.Context, host string, resp *http.Response) ([]byte, error) {
	var (
		body   []byte
		broken error
	)
	if resp.StatusCode != http.StatusSwitchingProtocols { // its body is the connection, without an end
		body, broken = io.ReadAll(io.LimitReader(resp.Body, httpBody))
	}
	err := httpMeaning(resp.StatusCode, resp.Header, body, time.Now())
	var changed *mulligan.ChangedError
	if broken != nil && (err == nil || errors.As(err, &changed)) {
		return nil, httpNoAnswer(ctx, host, fmt.Errorf("answered %d and broke off: %w", resp.StatusCode, broken))
	}
	if err != nil {
		return nil, err
	}
	return body, nil
}

// httpMeaning is the rule of answers: nil for done, else the outcome.
func httpMeaning(status int, h http.Header, body []byte, now time.Time) error {
	if status >= 200 && status <= 299 {
		return nil
	}
	err := httpError(status, h, body)
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		hint, _ := retryAfter(h, now)
		return mulligan.After(hint, err)
	case httpTransient(status):
		// No wait asked for, or none left: the policy's own delay is the shorter.
		if hint, _ := retryAfter(h, now); hint > 0 {
			return mulligan.After(hint, err)
		}
		return err
	case status == http.StatusUnprocessableEntity && len(body) > 0 && strings.EqualFold(strings.TrimSpace(h.Get("Mulligan-Retry")), "changed"):
		if len(body) > mulligan.MaxChanged {
			return mulligan.Permanent(fmt.Errorf("changed payload is over %d bytes: %w", mulligan.MaxChanged, err))
		}
		if hint, _ := retryAfter(h, now); hint > 0 {
			err = mulligan.After(hint, err)
		}
		return mulligan.Changed(body, err)
	}
	return mulligan.Permanent(err)
}

func httpTransient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500 && status <= 599
}

// httpError describes an answer that is not a success.
func httpError(status int, h http.Header, body []byte) error {
	what := strings.TrimSpace(fmt.Sprintf("answered %d %s", status, http.StatusText(status)))
	if said := httpLine(body); said != "" {
		what += ": " + said
	}
	switch {
	case status >= 300 && status <= 399 && h.Get("Location") != "":
		where := httpLine([]byte(h.Get("Location")))
		return mulligan.Typed("redirect", fmt.Errorf("%s (redirects are not followed; its Location is %s)", what, where))
	case status >= 100 && status <= 599:
		return mulligan.Typed("http_"+strconv.Itoa(status), errors.New(what))
	}
	return mulligan.Typed("http_other", errors.New(what))
}

// httpLine is the beginning of an answer's body, on one line.
func httpLine(body []byte) string {
	s := string(body[:min(len(body), 4*httpExcerpt)])
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	s = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > httpExcerpt {
		s = strings.ToValidUTF8(s[:httpExcerpt-len("…")], "") + "…"
	}
	return s
}

// httpNoAnswer says what a call without an answer means: it is tried again,
// unless the two cannot speak TLS with each other.
func httpNoAnswer(ctx context.Context, host string, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	kind := httpErrorType(err)
	err = mulligan.Typed(kind, fmt.Errorf("post to %s: %w", host, err))
	if kind == "tls" {
		return mulligan.Permanent(err)
	}
	return err
}

func httpErrorType(err error) string {
	var (
		certificate *tls.CertificateVerificationError
		alert       tls.AlertError
		record      tls.RecordHeaderError
		dns         *net.DNSError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return mulligan.ErrorType(err)
	case errors.As(err, &certificate), errors.As(err, &alert), errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "tls"
	case errors.As(err, &dns):
		return "dns"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		strings.HasSuffix(err.Error(), "server closed idle connection"): // net/http has no value for it
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	}
	if kind := mulligan.ErrorType(err); kind != "error" {
		return kind
	}
	return "no_answer"
}
