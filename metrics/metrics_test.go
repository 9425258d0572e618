package metrics_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/metrics"
)

// tellAll calls every method once, with this type of error.
func tellAll(m *metrics.Metrics, errorType string) {
	m.Attempt("email.send", "", time.Millisecond)
	m.Attempt("email.send", errorType, 2*time.Second)
	m.Retry("email.send", errorType, mulligan.Park)
	m.Deferred("email.send", mulligan.UserBudget)
	m.Done("email.send", "")
	m.Done("email.send", errorType)
	m.Spent("email.send", mulligan.Expired)
	m.Dead("email.send", mulligan.Expired)
	m.Unburied("email.send")
	m.Stored("MULLIGAN_JOBS", 7)
	m.Replayed("email.send")
	m.LostEvidence("email.send")
	m.GivenBack("email.send", "shutdown")
	m.NaksWaiting("email.send", 3)
	m.BucketAway("records", true)
	m.FreshHeld(true)
	m.ClockAhead(2 * time.Second)
	m.Tripped("mailer", "credential")
	m.Watch("mailer", func() metrics.Downstream {
		return metrics.Downstream{Held: "credential", CredentialRefused: true, InHand: 1, Limit: 12, InFlight: 3, Tokens: 4,
			Stuck: map[string]time.Time{"paused": time.Unix(1700000100, 0), "config": time.Unix(1700000000, 0)}}
	})
	m.Watch("mailer", func() metrics.Downstream {
		return metrics.Downstream{Limit: 4, Tokens: 0.5, Stuck: map[string]time.Time{"paused": time.Unix(1700000200, 0)}}
	}) // another worker in this process
	m.Watch("mailer", func() metrics.Downstream { return metrics.Downstream{Held: "open"} })() // and one that has ended
}

// gather returns the value of every series, as name{label="value"}; of a
// histogram the number of observations.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "mulligan_") {
			continue
		}
		for _, m := range f.GetMetric() {
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName() + "{" + strings.Join(pairs, ",") + "}"
			series[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return series
}

func TestEveryFactIsCountedUnderItsName(t *testing.T) {
	reg := prometheus.NewRegistry()
	tellAll(metrics.New(reg), "http_503")
	want := map[string]float64{
		`mulligan_attempt_seconds{kind="email.send"}`:                                 2,
		`mulligan_attempts_total{kind="email.send",outcome="ok"}`:                     1,
		`mulligan_attempts_total{kind="email.send",outcome="http_503"}`:               1,
		`mulligan_retries_total{error_type="http_503",kind="email.send",verb="park"}`: 1,
		`mulligan_deferred_total{kind="email.send",reason="user_budget"}`:             1,
		`mulligan_done_total{kind="email.send"}`:                                      2,
		`mulligan_recovered_total{error_type="http_503",kind="email.send"}`:           1,
		`mulligan_spent_total{kind="email.send",reason="expired"}`:                    1,
		`mulligan_dead_letters_total{kind="email.send",reason="expired"}`:             1,
		`mulligan_burial_failures_total{kind="email.send"}`:                           1,
		`mulligan_stored_messages{stream="MULLIGAN_JOBS"}`:                            7,
		`mulligan_replays_total{kind="email.send"}`:                                   1,
		`mulligan_lost_evidence_total{kind="email.send"}`:                             1,
		`mulligan_given_back_total{kind="email.send",why="shutdown"}`:                 1,
		`mulligan_in_hand{downstream="mailer"}`:                                       1,
		`mulligan_naks_waiting{kind="email.send"}`:                                    3,
		`mulligan_bucket_away{bucket="records"}`:                                      1,
		`mulligan_fresh_jobs_held{}`:                                                  1,
		`mulligan_clock_ahead_seconds{}`:                                              2,
		`mulligan_breaker_trips_total{downstream="mailer",why="credential"}`:          1,
		`mulligan_downstream_held{downstream="mailer",why="open"}`:                    0,
		`mulligan_downstream_held{downstream="mailer",why="credential"}`:              1,
		`mulligan_downstream_held{downstream="mailer",why="gate"}`:                    0,
		`mulligan_downstream_held{downstream="mailer",why="probe"}`:                   0,
		`mulligan_stuck{downstream="mailer",why="paused"}`:                            2,
		`mulligan_stuck{downstream="mailer",why="config"}`:                            1,
		`mulligan_stuck_since_seconds{downstream="mailer"}`:                           1700000000,
		`mulligan_credential_refused{downstream="mailer"}`:                            1,
		`mulligan_calls_limit{downstream="mailer"}`:                                   16,
		`mulligan_calls_in_flight{downstream="mailer"}`:                               3,
		`mulligan_retry_tokens{downstream="mailer"}`:                                  4.5,
	}
	got := gather(t, reg)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[name]; !ok || v != want[name] {
			t.Errorf("%s is %v, want %v", name, v, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is new: add it here", name)
		}
	}
}

// counting is a registry that counts what is registered.
type counting struct {
	*prometheus.Registry
	n int
}

func (c *counting) MustRegister(cs ...prometheus.Collector) {
	c.n += len(cs)
	c.Registry.MustRegister(cs...)
}

func TestNoMetricIsRegisteredAndNeverCounted(t *testing.T) {
	const shown = 8 // by the one collector of how a downstream stands
	reg := &counting{Registry: prometheus.NewRegistry()}
	tellAll(metrics.New(reg), "http_503")
	families, err := reg.Gather()
	if want := reg.n - 1 + shown; err != nil || len(families) != want {
		t.Errorf("%d metrics of %d are counted, %v: a method is missing here, or of no use", len(families), want, err)
	}
}

func TestNoMetricsCountNothing(t *testing.T) {
	tellAll(nil, "http_503")
}

func TestTheNumberOfErrorTypesIsBounded(t *testing.T) {
	const types = 64
	reg := prometheus.NewRegistry()
	m := metrics.New(reg)
	for i := range types + 20 {
		tellAll(m, fmt.Sprintf("type_%d", i))
	}
	m.Attempt("email.send", "type_0", 0) // a type that is known stays itself
	got := gather(t, reg)
	for name, want := range map[string]float64{
		`mulligan_attempts_total{kind="email.send",outcome="type_0"}`:              2,
		`mulligan_attempts_total{kind="email.send",outcome="type_63"}`:             1,
		`mulligan_attempts_total{kind="email.send",outcome="other"}`:               20,
		`mulligan_retries_total{error_type="other",kind="email.send",verb="park"}`: 20,
		`mulligan_recovered_total{error_type="other",kind="email.send"}`:           20,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	shown := 0
	for name := range got {
		if strings.HasPrefix(name, "mulligan_attempts_total") {
			shown++
		}
	}
	if want := types + len([]string{"ok", "other"}); shown != want {
		t.Errorf("%d outcomes are shown, want %d", shown, want)
	}
}

func TestNoLabelNamesAUserATaskOrAnID(t *testing.T) {
	reg := prometheus.NewRegistry()
	tellAll(metrics.New(reg), "http_503")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"kind", "downstream", "reason", "error_type", "verb", "outcome", "why", "stream", "bucket"}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains(allowed, l.GetName()) {
					t.Errorf("%s has the label %s, want one of %q", f.GetName(), l.GetName(), allowed)
				}
			}
		}
	}
}

func TestTheMetricsAreNamedAsPrometheusAsks(t *testing.T) {
	reg := prometheus.NewRegistry()
	tellAll(metrics.New(reg), "http_503")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
