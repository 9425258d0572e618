package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// A Downstream is how a downstream stands in one worker.
type Downstream struct {
	Held              string // why nothing is pulled for it: open, credential or gate; empty if it is not held
	CredentialRefused bool
	Limit             int     // calls that may be in flight
	InFlight          int     // calls that are
	Tokens            float64 // retries saved
}

// watched reads the downstreams when the metrics are.
type watched struct {
	mu   sync.Mutex
	read map[string]func() Downstream
}

// Watch has a downstream shown, as read says at the time; read must be safe for
// concurrent use. Another Watch of the same name replaces it.
func (m *Metrics) Watch(downstream string, read func() Downstream) {
	if m == nil {
		return
	}
	m.watched.mu.Lock()
	defer m.watched.mu.Unlock()
	if m.watched.read == nil {
		m.watched.read = map[string]func() Downstream{}
	}
	m.watched.read[downstream] = read
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
	defer w.mu.Unlock()
	for name, read := range w.read {
		d := read()
		gauge := func(metric, help string, value float64) {
			desc := prometheus.NewDesc(metric, help, []string{"downstream"}, nil)
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, name)
		}
		held := prometheus.NewDesc("mulligan_downstream_held", "1 while this worker pulls nothing for the downstream: because it fails (open), refuses the credential, or asked to wait (gate).", []string{"downstream", "why"}, nil)
		for _, why := range []string{"open", "credential", "gate"} {
			out <- prometheus.MustNewConstMetric(held, prometheus.GaugeValue, truth(d.Held == why), name, why)
		}
		gauge("mulligan_credential_refused", "1 from when the downstream refused the credential until a probe is accepted: renew it.", truth(d.CredentialRefused))
		gauge("mulligan_calls_limit", "Calls of the downstream that this worker may have in flight.", float64(d.Limit))
		gauge("mulligan_calls_in_flight", "Calls of the downstream that this worker has in flight.", float64(d.InFlight))
		gauge("mulligan_retry_tokens", "Retries of the downstream that this worker has saved.", d.Tokens)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
