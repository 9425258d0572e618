package consumer

import (
	"errors"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// httpMaxHint is the longest wait that is told apart: above any policy's total
// and, whatever the clocks, behind any deadline, so that a longer one ends the
// job like this one and is never cut to a retry before its time.
const httpMaxHint = mulligan.MaxDeadline + 24*time.Hour

var httpNumber = regexp.MustCompile(`^-?[0-9]+(\.[0-9]*)?$`)

// retryAfter is how long the downstream asks to wait, and whether it asks at
// all. Retry-After-Ms goes first, since a Retry-After beside it is the same
// wait rounded to seconds. What is neither a number nor a date is ignored; a
// wait that is over is zero, and one over [httpMaxHint] is that.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	if d, ok := httpWait(h.Get("Retry-After-Ms"), time.Millisecond); ok {
		return d, true
	}
	value := strings.TrimSpace(h.Get("Retry-After"))
	if d, ok := httpWait(value, time.Second); ok {
		return d, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	// The date is by the downstream's clock, and so is the answer's own.
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return min(max(at.Sub(now), 0), httpMaxHint), true
}

// httpWait reads a number of units, rounded up to the nanosecond.
func httpWait(s string, unit time.Duration) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	if !httpNumber.MatchString(s) {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	ns := math.Ceil(n * float64(unit))
	if ns >= float64(httpMaxHint) {
		return httpMaxHint, true
	}
	return time.Duration(max(ns, 0)), true
}
