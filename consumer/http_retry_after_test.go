package consumer

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func TestRetryAfterIsAWait(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 500_000_000, time.UTC)
	const none = time.Duration(-1)
	for _, c := range []struct {
		name              string
		seconds, ms, date string
		want              time.Duration
	}{
		{"nothing is no wait", "", "", "", none},
		{"seconds", "120", "", "", 2 * time.Minute},
		{"seconds with spaces around", " 5 ", "", "", 5 * time.Second},
		{"parts of a second", "0.3", "", "", 300 * time.Millisecond},
		{"zero is a wait that is over", "0", "", "", 0},
		{"negative is a wait that is over", "-5", "", "", 0},
		{"a day and a second", "86401", "", "", 24*time.Hour + time.Second},
		{"a month in milliseconds", "", "2592000000.5", "", mulligan.MaxDeadline + 500*time.Microsecond},
		{"a year is longer than any job lives", "31536000", "", "", httpMaxHint},
		{"more than a number holds is longer than any job lives", strings.Repeat("9", 400), "", "", httpMaxHint},
		{"a year of milliseconds is longer than any job lives", "", "31536000000", "", httpMaxHint},
		{"a date", "Sun, 01 Mar 2026 12:00:10 GMT", "", "", 9500 * time.Millisecond},
		{"a date by the provider's clock", "Sun, 01 Mar 2026 15:00:10 GMT", "", "Sun, 01 Mar 2026 15:00:00 GMT", 10 * time.Second},
		{"a date in an old form", "Sunday, 01-Mar-26 12:00:10 GMT", "", "", 9500 * time.Millisecond},
		{"a date in the past is a wait that is over", "Sun, 01 Mar 2026 11:00:00 GMT", "", "", 0},
		{"a date next week", "Sun, 08 Mar 2026 12:00:01 GMT", "", "", 7*24*time.Hour + 500*time.Millisecond},
		{"a date next year is longer than any job lives", "Mon, 01 Mar 2027 12:00:00 GMT", "", "", httpMaxHint},
		{"a date in the last year that a date can name", "Fri, 31 Dec 9999 23:59:59 GMT", "", "", httpMaxHint},
		{"milliseconds", "", "250", "", 250 * time.Millisecond},
		{"milliseconds go before seconds", "1", "250", "", 250 * time.Millisecond},
		{"milliseconds that are garbage do not hide seconds", "1", "quick", "", time.Second},
		{"a word is ignored", "soon", "", "", none},
		{"infinity is ignored", "Inf", "", "", none},
		{"another base is ignored", "0x10", "", "", none},
		{"an exponent is ignored", "1e3", "", "", none},
		{"a half date is ignored", "Sun, 01 Mar", "", "", none},
	} {
		h := http.Header{}
		for name, value := range map[string]string{"Retry-After": c.seconds, "Retry-After-Ms": c.ms, "Date": c.date} {
			if value != "" {
				h.Set(name, value)
			}
		}
		got, ok := retryAfter(h, now)
		if !ok {
			got = none
		}
		if got != c.want {
			t.Errorf("%s: %v: got %v, want %v", c.name, h, got, c.want)
		}
	}
}

// A hint that is longer than can be told apart, or than a job may live, ends the
// job: it never leads to a retry before the hint is over.
func TestHTTPHintIsNeverCutToAnEarlierRetry(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	longest, err := mulligan.Policy{Attempts: 100, Total: 7 * 24 * time.Hour, MaxDelay: 7 * 24 * time.Hour}.Normal()
	if err != nil {
		t.Fatal(err)
	}
	// By a worker whose clock is behind the one that set the deadline.
	deadline := now.Add(mulligan.MaxDeadline + time.Hour)
	const day = "86400"
	for _, c := range []struct {
		name, outcome, seconds string
		want                   mulligan.Verb
		reason                 mulligan.Reason
	}{
		{"a retry after two days waits for two days", "transient", "172800", park, ""},
		{"a retry after eight days is past the total", "transient", "691200", spend, mulligan.TimeExhausted},
		{"a retry after a year is past the total", "transient", "31536000", spend, mulligan.TimeExhausted},
		{"a retry after longer than a number holds is past the total", "not-started", day + strings.Repeat("0", 400), spend, mulligan.TimeExhausted},
		{"a snooze of eight days waits for eight days", "snooze", "691200", deferred, mulligan.Snoozed},
		{"a snooze of a year is past the deadline", "snooze", "31536000", spend, mulligan.Expired},
		{"a snooze for longer than a number holds is past the deadline", "snooze", day + strings.Repeat("0", 400), spend, mulligan.Expired},
	} {
		h := http.Header{"Mulligan-Outcome": {c.outcome}, "Retry-After": {c.seconds}}
		v := longest.Judge(mulligan.Ended{Number: 1}, httpMeaning(503, h, nil, now), mulligan.Chance{}).Under(mulligan.Grant{Now: now, Deadline: deadline, Nak: true})
		if v.Verb != c.want || v.Reason != c.reason {
			t.Errorf("%s: got %s %q, want %s %q", c.name, v.Verb, v.Reason, c.want, c.reason)
		}
		seconds, _ := strconv.Atoi(c.seconds)
		if hint := time.Duration(seconds) * time.Second; v.Verb != spend && v.Due.Before(now.Add(hint)) {
			t.Errorf("%s: it is due at %v, before the hint of %v is over", c.name, v.Due, hint)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "1", "-1", "0.5", "1e9", "Sun, 01 Mar 2026 12:00:10 GMT", "99999999999999999999", "NaN"} {
		f.Add(seed, "", "")
		f.Add("", seed, "Sun, 01 Mar 2026 12:00:10 GMT")
		f.Add(seed, "soon", seed)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, after, ms, date string) {
		d, ok := retryAfter(http.Header{"Retry-After": {after}, "Retry-After-Ms": {ms}, "Date": {date}}, now)
		if d < 0 || d > httpMaxHint || !ok && d != 0 {
			t.Fatalf("Retry-After %q, Ms %q, Date %q: got %v, %v", after, ms, date, d, ok)
		}
		// Never before the hint: whole seconds mean exactly that.
		if n, err := strconv.ParseUint(after, 10, 64); err == nil && ms == "" {
			if want := time.Duration(math.Min(float64(n), httpMaxHint.Seconds())) * time.Second; d != want {
				t.Fatalf("Retry-After %q: got %v, want %v", after, d, want)
			}
		}
	})
}

func TestHTTPARefusedCredentialKeepsItsRetryAfter(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusProxyAuthRequired} {
		m := mulligan.MeaningOf(httpMeaning(status, http.Header{"Retry-After": {"300"}}, nil, time.Now()))
		if !m.Refused || m.Hint != 5*time.Minute {
			t.Errorf("%d with a Retry-After of 300s means %+v", status, m)
		}
	}
}
