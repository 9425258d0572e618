package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/metrics"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// What strangers write on the stream of jobs at and over every limit runs or
// ends as a letter that can be read and shown; none of it makes a series of
// metrics, and the jobs behind it run.
func TestWhatIsAtOrOverALimitRunsOrIsBuried(t *testing.T) {
	t.Parallel()
	f := newFloor(t, mulligan.Kind{Name: "raw.limit", Effect: mulligan.Pure})
	const fails = "headers-at-it-fail" // so that a letter has them all
	reg := prometheus.NewRegistry()
	f.work(t, &consumer.Worker{Metrics: metrics.New(reg)}, func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		if job.ID == fails {
			return nil, mulligan.Permanent(errors.New(strings.Repeat("e", 10_000)))
		}
		return nil, nil
	})
	text := func(n int) string { return strings.Repeat("u", n) }
	largest := int(f.Conn.MaxPayload()) - 64<<10
	for id, c := range map[string]struct {
		block, body string
		runs        bool
		reason      mulligan.Reason
	}{
		"user-at-the-limit":   {"Mulligan-User: " + text(255), "", true, ""},
		"user-over-it":        {"Mulligan-User: " + text(256), "", false, mulligan.Malformed},
		"task-over-it":        {"Mulligan-Task: " + text(256), "", false, mulligan.Malformed},
		"retries-at-it":       {"Mulligan-Task: t\r\nMulligan-Task-Retries: 100", "", true, ""},
		"retries-over-it":     {"Mulligan-Task: t\r\nMulligan-Task-Retries: 99999999999999999999", "", false, mulligan.Malformed},
		"user-of-controls":    {"Mulligan-User: \x1b[2J\x07", "", false, mulligan.Malformed},
		"trace-of-garbage":    {"traceparent: 00-zz-\xc3\xa9", "", true, ""},
		"trace-of-controls":   {"traceparent: \x01", "", false, mulligan.Malformed},
		"type-without-an-end": {"Content-Type: " + text(10_000), "", false, mulligan.Malformed},
		"deadline-of-ages":    {"Mulligan-Deadline: 9999-12-31T23:59:59Z", "", true, ""},
		"deadline-long-past":  {"Mulligan-Deadline: 0001-01-01T00:00:01Z", "", false, mulligan.Expired},
		"not-before-ages":     {"Mulligan-Not-Before: 9999-12-31T23:59:59.999999999-23:59", "", false, mulligan.Expired},
		"not-before-long-ago": {"Mulligan-Not-Before: 0001-01-01T00:00:01Z", "", true, ""},
		"two-thousand-lines":  {strings.TrimSuffix(strings.Repeat("X-Line: 1\r\n", 2000), "\r\n"), "", true, ""},
		"two-thousand-names":  {headerLines(2000), "", true, ""},
		fails:                 {"X-Line: " + text(32<<10-100), "p", true, mulligan.PermanentFailure},
		"five-thousand-names": {headerLines(5000), "p", true, ""},                          // more than a publisher takes, and can be moved
		"a-line-of-64-KiB":    {"X-Line: " + text(65_000), "p", false, mulligan.Malformed}, // the server takes no more
		"ours-as-a-stranger":  {"Mulligan-Attempts: 99\r\nMulligan-Reason: crashed\r\nMulligan-Published: 0001-01-01T00:00:00Z", "", true, ""},
		"payload-at-it":       {"X: 1", text(largest - 100), true, ""},
	} {
		f.raw(t, mulligan.Subject(f.Topology.JobsRoot(), f.kind.Name, id), "NATS/1.0\r\n"+c.block+"\r\n\r\n", c.body)
		t.Cleanup(func() {
			l, err := (&scheduler.Scheduler{Conn: f.Conn}).Letter(context.Background(), f.kind.Name, id)
			ran := len(f.runsOf(id)) == 1
			if ran != c.runs || l.Reason != c.reason || (c.reason == "") != errors.Is(err, mulligan.ErrNotFound) || err == nil && string(l.Payload) != c.body {
				t.Errorf("%s: it ran %v and has the letter %q, %v; want %v and %q", id, ran, l.Reason, err, c.runs, c.reason)
			}
			if strings.ContainsFunc(l.Error, unicode.IsControl) || len(l.Error) > 600 {
				t.Errorf("%s: its letter says %q", id, l.Error)
			}
		})
	}
	for _, kind := range []string{"stranger.kind", "raw.limit.more", "x"} { // nobody serves these
		f.raw(t, mulligan.Subject(f.Topology.JobsRoot(), kind, "1"), "NATS/1.0\r\n\r\n", "")
	}
	f.publish(t, mulligan.Job{ID: "behind"})
	const strangers = 3
	eventually(t, time.Minute, "all but the strangers' kinds have ended", func() bool { return streams{f.JS}.left(t) == strangers && len(f.runsOf("behind")) == 1 })
	checkLabels(t, reg, f.kind.Name)
}

// headerLines are some, each with a name of its own.
func headerLines(n int) string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-%d: 1", i))
	}
	return strings.Join(lines, "\r\n")
}

// checkLabels checks that no metric names any kind but one.
func checkLabels(t *testing.T, reg *prometheus.Registry, kind string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() != "kind" {
					continue
				}
				if seen = true; label.GetValue() != kind {
					t.Errorf("%s has a series of the kind %q", family.GetName(), label.GetValue())
				}
			}
		}
	}
	if !seen {
		t.Error("no metric has a kind")
	}
}
