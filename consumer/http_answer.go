package consumer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// httpWord is what an answer means, in a word. All but httpThrottled and
// httpCredential are words of the header Mulligan-Outcome.
type httpWord string

const (
	httpDone       httpWord = "done"
	httpTransient  httpWord = "transient"
	httpPermanent  httpWord = "permanent"
	httpUnusable   httpWord = "unusable"
	httpChanged    httpWord = "changed"
	httpSnooze     httpWord = "snooze"
	httpNotStarted httpWord = "not-started"
	httpThrottled  httpWord = "throttled"
	httpCredential httpWord = "credential"
)

// httpAnswered reads the answer's body and says what the answer means.
func httpAnswered(ctx context.Context, host string, resp *http.Response) ([]byte, error) {
	var (
		body   []byte
		broken error
	)
	if resp.StatusCode != http.StatusSwitchingProtocols { // its body is the connection, without an end
		body, broken = io.ReadAll(io.LimitReader(resp.Body, httpBody))
	}
	if o := httpOutcomeOf(resp.StatusCode, resp.Header); broken != nil && (o == httpDone || o == httpChanged) {
		return nil, httpNoAnswer(ctx, host, fmt.Errorf("answered %d and broke off: %w", resp.StatusCode, broken))
	}
	if err := httpMeaning(resp.StatusCode, resp.Header, body, time.Now()); err != nil {
		return nil, err
	}
	return body, nil
}

// httpMeaning is the rule of answers as a handler says it: nil for done, else
// an error.
func httpMeaning(status int, h http.Header, body []byte, now time.Time) error {
	outcome := httpOutcomeOf(status, h)
	if outcome == httpDone {
		return nil
	}
	hint, _ := retryAfter(h, now)
	err := httpError(status, h, body)
	switch outcome {
	case httpThrottled:
		return mulligan.After(hint, err)
	case httpTransient:
		return httpAfter(hint, err)
	case httpNotStarted:
		return httpAfter(hint, mulligan.NotStarted(err))
	case httpChanged:
		return httpChangedTo(body, httpAfter(hint, err), err)
	case httpSnooze:
		return mulligan.Typed(httpField(h, "Mulligan-Error-Type"), mulligan.Snooze(hint))
	case httpUnusable:
		return mulligan.Unusable(err)
	case httpCredential:
		return mulligan.RefusedCredential(httpAfter(hint, err))
	}
	return mulligan.Permanent(err)
}

// httpOutcomeOf is the outcome that the answer says itself, else that of its
// status.
func httpOutcomeOf(status int, h http.Header) httpWord {
	if said, ok := httpSaid(h); ok {
		return said
	}
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return httpThrottled
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return httpCredential
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		return httpTransient
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return httpPermanent
	case http.StatusUnprocessableEntity:
		if strings.EqualFold(httpField(h, "Mulligan-Retry"), string(httpChanged)) {
			return httpChanged
		}
		return httpPermanent
	}
	switch status / 100 {
	case 2:
		return httpDone
	case 5:
		return httpTransient
	}
	return httpPermanent
}

// httpSaid is the outcome that the answer says itself, and whether it says one
// that there is.
func httpSaid(h http.Header) (httpWord, bool) {
	switch said := httpWord(strings.ToLower(httpField(h, "Mulligan-Outcome"))); said {
	case httpDone, httpTransient, httpPermanent, httpUnusable, httpChanged, httpSnooze, httpNotStarted:
		return said, true
	}
	return "", false
}

func httpField(h http.Header, name string) string { return strings.TrimSpace(h.Get(name)) }

// httpAfter adds the wait that was asked for. Without one, or with none left,
// the policy's own delay is the shorter.
func httpAfter(hint time.Duration, err error) error {
	if hint > 0 {
		return mulligan.After(hint, err)
	}
	return err
}

// httpChangedTo is the wish to try again with the body, after the failure
// again; a body that cannot be a payload makes the failure one for good.
func httpChangedTo(body []byte, again, failure error) error {
	switch {
	case len(body) == 0:
		return mulligan.Permanent(fmt.Errorf("changed payload is missing, the answer has no body: %w", failure))
	case len(body) > mulligan.MaxChanged:
		return mulligan.Permanent(fmt.Errorf("changed payload is over %d bytes: %w", mulligan.MaxChanged, failure))
	}
	return mulligan.Changed(body, again)
}

// httpError describes an answer that is not a success. Its type is what the
// answer calls it, else that of the status.
func httpError(status int, h http.Header, body []byte) error {
	what := strings.TrimSpace(fmt.Sprintf("answered %d %s", status, http.StatusText(status)))
	if said, ok := httpSaid(h); ok {
		what += ", outcome " + string(said)
	} else if word := httpField(h, "Mulligan-Outcome"); word != "" {
		what += fmt.Sprintf(", outcome %.40q was not understood", word)
	}
	if said := httpLine(body); said != "" {
		what += ": " + said
	}
	errType := "http_other"
	switch {
	case status >= 300 && status <= 399 && h.Get("Location") != "":
		errType = "redirect"
		what += fmt.Sprintf(" (redirects are not followed; its Location is %s)", httpLine([]byte(h.Get("Location"))))
	case status >= 100 && status <= 599:
		errType = "http_" + strconv.Itoa(status)
	}
	// The outer type counts, and one that is no word is ignored.
	return mulligan.Typed(httpField(h, "Mulligan-Error-Type"), mulligan.Typed(errType, errors.New(what)))
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
