package metrics

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mulligan-queue/mulligan"
)

// A Downstream is how a downstream stands in one worker.
type Downstream struct {
	Held              string // why its jobs wait: open, credential, gate or probe; empty if they do not
	CredentialRefused bool
	InHand            int     // messages pulled and not let go of
	Limit             int     // calls that may be in flight
	InFlight          int     // calls that are
	Tokens            float64 // retries saved
	// Stuck is since when its jobs wait in vain, by why.
	Stuck map[string]time.Time
}

// watched reads the downstreams when the metrics are.
type watched struct {
	mu   sync.Mutex
	last int
	read map[int]reader
}

type reader struct {
	downstream string
	read       func() Downstream
	spent      bool // it reads the spent jobs
}

// Watch has a downstream shown as read says at the time, until stop is called;
// read must be safe for concurrent use. What several workers of this process say
// of one downstream is added up.
func (m *Metrics) Watch(downstream string, read func() Downstream) (stop func()) {
	if m == nil {
		return func() {}
	}
	return m.watched.add(reader{downstream, read, false})
}

// WatchSpent is Watch for the spent jobs, of which only those that wait in vain are
// shown, under the name of the schedulers' consumer.
func (m *Metrics) WatchSpent(stuck func() map[string]time.Time) (stop func()) {
	if m == nil {
		return func() {}
	}
	return m.watched.add(reader{mulligan.SchedulerConsumer, func() Downstream { return Downstream{Stuck: stuck()} }, true})
}

func (w *watched) add(r reader) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.read == nil {
		w.read = map[int]reader{}
	}
	w.last++
	key := w.last
	w.read[key] = r
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.read, key)
	}
}

// Tripped counts a downstream that worked and is held now.
func (m *Metrics) Tripped(downstream, why string) {
	if m != nil {
		m.trips.WithLabelValues(downstream, why).Inc()
	}
}

// Describe says nothing: which downstreams there are is known later.
func (*watched) Describe(chan<- *prometheus.Desc) {}

// Collect reads each downstream.
func (w *watched) Collect(out chan<- prometheus.Metric) {
	w.mu.Lock()
	readers := slices.Collect(maps.Values(w.read))
	w.mu.Unlock()
	shown := map[series]float64{}
	for _, r := range readers {
		d := r.read()
		for why := range d.Stuck {
			shown[series{"mulligan_stuck", r.downstream, why}]++
		}
		since := series{"mulligan_stuck_since_seconds", r.downstream, ""}
		if shown[since] = earliest(shown[since], d.Stuck); r.spent {
			continue
		}
		for _, why := range []string{"open", "credential", "gate", "probe"} {
			shown[series{"mulligan_downstream_held", r.downstream, why}] += truth(d.Held == why)
		}
		shown[series{"mulligan_credential_refused", r.downstream, ""}] += truth(d.CredentialRefused)
		shown[series{"mulligan_in_hand", r.downstream, ""}] += float64(d.InHand)
		shown[series{"mulligan_calls_limit", r.downstream, ""}] += float64(d.Limit)
		shown[series{"mulligan_calls_in_flight", r.downstream, ""}] += float64(d.InFlight)
		shown[series{"mulligan_retry_tokens", r.downstream, ""}] += d.Tokens
	}
	for s, value := range shown {
		out <- s.metric(value)
	}
}

// series is one value of a metric.
type series struct{ name, downstream, why string }

func (s series) metric(value float64) prometheus.Metric {
	help := map[string]string{
		"mulligan_downstream_held":     "Workers of this process in which the downstream's jobs wait: because it fails (open), refuses the credential, asked to wait (gate), or is being probed.",
		"mulligan_stuck":               "Workers of this process in which jobs of the downstream wait in vain, by why.",
		"mulligan_stuck_since_seconds": "Since when jobs of the downstream wait in vain, as Unix time; 0 if they do not.",
		"mulligan_credential_refused":  "Workers of this process whose credential the downstream refused, until a probe is accepted: renew it.",
		"mulligan_in_hand":             "Messages in this process's hands: running, about to, or waiting for a short retry.",
		"mulligan_calls_limit":         "Calls of the downstream that this process may have in flight.",
		"mulligan_calls_in_flight":     "Calls of the downstream that this process has in flight.",
		"mulligan_retry_tokens":        "Retries of the downstream that this process has saved.",
	}[s.name]
	labels, values := []string{"downstream"}, []string{s.downstream}
	if s.why != "" {
		labels, values = append(labels, "why"), append(values, s.why)
	}
	return prometheus.MustNewConstMetric(prometheus.NewDesc(s.name, help, labels, nil), prometheus.GaugeValue, value, values...)
}

// earliest is the first of all times and at, which is zero for none.
func earliest(at float64, times map[string]time.Time) float64 {
	for _, t := range times {
		if s := float64(t.Unix()); at == 0 || s < at {
			at = s
		}
	}
	return at
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
