package budget

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// FuzzUserState takes places out of whatever a bucket may hold of a user.
func FuzzUserState(f *testing.F) {
	for _, value := range []string{
		``, `null`, `[]`, `{}`, `{"whole":"2026-01-01T00:00:05Z","granted":3}`,
		`{"whole":"9999-12-31T23:59:59Z"}`,   // of a worker whose clock was wrong
		`{"whole":"0001-01-01T00:00:00Z"}`,   // and of another
		`{"granted":9223372036854775807}`,    // the next one would be negative
		`{"granted":-9223372036854775808}`,   // as here
		`{"whole":"2026-01-01T00:00:05+00"}`, // no time
	} {
		f.Add([]byte(value), 1.0, 10)
		f.Add([]byte(value), 1e-300, 1)
		f.Add([]byte(value), 1e6, 1_000_000)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value []byte, perSecond float64, burst int) {
		r, err := Rate{PerSecond: perSecond, Burst: burst}.Normal()
		if err != nil {
			return
		}
		s := readUser(value, now)
		atOnce := 0
		last := now
		for range 100 {
			p := s.Take(r, Want{Now: now, Due: now, Deadline: now.Add(mulligan.MaxDeadline)})
			if p.Denied {
				break
			}
			if p.At.Before(last) || p.At.After(now.Add(mulligan.MaxDeadline)) {
				t.Fatalf("%s at %+v: a place at %v, the one before it was at %v", value, r, p.At, last)
			}
			if last = p.At; p.At.Equal(now) {
				atOnce++
			}
		}
		if atOnce > r.Burst+int(r.PerSecond/float64(time.Second))+1 {
			t.Errorf("%s at %+v: %d places at once", value, r, atOnce)
		}
		if keep := s.keep(now); keep < keepIdle || keep > 2*maxWhole {
			t.Errorf("%s at %+v: kept for %v", value, r, keep)
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("%s at %+v: %v", value, r, err)
		}
		if again := readUser(b, now); !again.Whole.Equal(s.Whole) || again.Granted != s.Granted {
			t.Errorf("%s reads as %+v, want %+v", b, again, s)
		}
	})
}

// FuzzTaskState takes retries out of whatever a bucket may hold of a task.
func FuzzTaskState(f *testing.F) {
	for _, value := range []string{``, `null`, `{}`, `{"used":4}`, `{"used":-1000}`, `{"used":9223372036854775807}`, `{"denied":9223372036854775807}`, `{"used":1e3}`, `{"Used":3}`} {
		f.Add([]byte(value), 1, 5)
		f.Add([]byte(value), 2, mulligan.MaxTaskRetries)
	}
	f.Fuzz(func(t *testing.T, value []byte, retries, limit int) {
		if retries < 1 || retries > 1000 || limit < 0 || limit > mulligan.MaxTaskRetries {
			return
		}
		s, ok := readTask(value)
		if !ok {
			return
		}
		granted := 0
		for range limit + 2 {
			before := s.Used
			if s.take(TaskAsk{Retries: retries, Limit: limit}) {
				granted += retries
			}
			if s.Used < before || s.Used > math.MaxInt/2+retries {
				t.Fatalf("%s: %d used after %d", value, s.Used, before)
			}
		}
		if granted > limit {
			t.Errorf("%s: %d retries were granted, the limit is %d", value, granted, limit)
		}
	})
}
