package consumer

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
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
		{"a year is cut to a day", "31536000", "", "", 24 * time.Hour},
		{"more than a number holds is cut to a day", strings.Repeat("9", 400), "", "", 24 * time.Hour},
		{"a date", "Sun, 01 Mar 2026 12:00:10 GMT", "", "", 9500 * time.Millisecond},
		{"a date by the provider's clock", "Sun, 01 Mar 2026 15:00:10 GMT", "", "Sun, 01 Mar 2026 15:00:00 GMT", 10 * time.Second},
		{"a date in an old form", "Sunday, 01-Mar-26 12:00:10 GMT", "", "", 9500 * time.Millisecond},
		{"a date in the past is a wait that is over", "Sun, 01 Mar 2026 11:00:00 GMT", "", "", 0},
		{"a date next year is cut to a day", "Mon, 01 Mar 2027 12:00:00 GMT", "", "", 24 * time.Hour},
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
