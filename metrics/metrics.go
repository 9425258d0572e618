// Package metrics counts what Mulligan does, for Prometheus. Labels are
// bounded: kinds, downstreams, reasons and error types, never a user, a task or
// an ID.
package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mulligan-queue/mulligan"
)

// Metrics are the counters of one process. A nil *Metrics counts nothing. It is
// safe for concurrent use.
type Metrics struct {
	attempts   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	retries    *prometheus.CounterVec
	deferred   *prometheus.CounterVec
	recovered  *prometheus.CounterVec
	done       *prometheus.CounterVec
	spent      *prometheus.CounterVec
	dead       *prometheus.CounterVec
	unburied   *prometheus.CounterVec
	replayed   *prometheus.CounterVec
	lost       *prometheus.CounterVec
	givenBack  *prometheus.CounterVec
	nakWaiting *prometheus.GaugeVec
	stored     *prometheus.GaugeVec
	away       *prometheus.GaugeVec
	trips      *prometheus.CounterVec
	held       prometheus.Gauge
	ahead      prometheus.Gauge
	watched    watched

	mu    sync.Mutex
	types map[string]bool
}

// New registers the metrics with reg.
func New(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		reg.MustRegister(g)
		return g
	}
	m := &Metrics{
		attempts:   counter("mulligan_attempts_total", "Handler calls that ended, by outcome: ok, or the error's type.", "kind", "outcome"),
		retries:    counter("mulligan_retries_total", "Retries planned, by the error's type and whether they are a nak, a park or inside the handler (retry).", "kind", "error_type", "verb"),
		deferred:   counter("mulligan_deferred_total", "Jobs put off without having used an attempt, or to a later place of their user's.", "kind", "reason"),
		recovered:  counter("mulligan_recovered_total", "Jobs done, but not at the first attempt, by the type of the last error: whether retrying helps.", "kind", "error_type"),
		done:       counter("mulligan_done_total", "Jobs done.", "kind"),
		spent:      counter("mulligan_spent_total", "Jobs that will not be tried again.", "kind", "reason"),
		dead:       counter("mulligan_dead_letters_total", "Dead letters written.", "kind", "reason"),
		unburied:   counter("mulligan_burial_failures_total", "Burials that could not be finished and are tried again; they rise while the dead letters are full.", "kind"),
		replayed:   counter("mulligan_replays_total", "Dead letters published again.", "kind"),
		lost:       counter("mulligan_lost_evidence_total", "Facts that could not be recorded.", "kind"),
		givenBack:  counter("mulligan_given_back_total", "Messages returned unhandled.", "kind", "why"),
		nakWaiting: gauge("mulligan_naks_waiting", "Short retries of this worker that are not due yet.", "kind"),
		stored:     gauge("mulligan_stored_messages", "Messages in a stream: jobs to run, retries and spent jobs waiting, dead letters.", "stream"),
		away:       gauge("mulligan_bucket_away", "1 while the bucket brings no answer and jobs wait for it.", "bucket"),
		trips:      counter("mulligan_breaker_trips_total", "Times that a downstream which worked was held, because it fails (open) or refuses the credential (credential).", "downstream", "why"),
		types:      map[string]bool{},
	}
	m.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "mulligan_attempt_seconds", Help: "How long handler calls took.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
	}, []string{"kind"})
	m.held = prometheus.NewGauge(prometheus.GaugeOpts{Name: "mulligan_fresh_jobs_held", Help: "1 while this worker pulls no fresh jobs because too many retries wait."})
	m.ahead = prometheus.NewGauge(prometheus.GaugeOpts{Name: "mulligan_clock_ahead_seconds", Help: "How far this machine's clock is ahead of the NATS server's, which is the one that counts; 0 if they agree."})
	reg.MustRegister(m.duration, m.held, m.ahead, &m.watched)
	return m
}

// maxTypes bounds the error types that this process shows by name.
const maxTypes = 64

// errorType returns t, or other once too many types were seen.
func (m *Metrics) errorType(t string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.types[t] {
		if len(m.types) >= maxTypes {
			return "other"
		}
		m.types[t] = true
	}
	return t
}

// Attempt counts a handler call that took a time and ended with an error of a
// type, or with none.
func (m *Metrics) Attempt(kind, errorType string, took time.Duration) {
	if m == nil {
		return
	}
	outcome := "ok"
	if errorType != "" {
		outcome = m.errorType(errorType)
	}
	m.attempts.WithLabelValues(kind, outcome).Inc()
	m.duration.WithLabelValues(kind).Observe(took.Seconds())
}

// Retry counts a planned retry.
func (m *Metrics) Retry(kind, errorType string, verb mulligan.Verb) {
	if m != nil {
		m.retries.WithLabelValues(kind, m.errorType(errorType), string(verb)).Inc()
	}
}

// Deferred counts a job put off.
func (m *Metrics) Deferred(kind string, reason mulligan.Reason) {
	if m != nil {
		m.deferred.WithLabelValues(kind, string(reason)).Inc()
	}
}

// Done counts a job that is done; last is the type of the error before, empty
// at the first attempt.
func (m *Metrics) Done(kind, last string) {
	if m == nil {
		return
	}
	m.done.WithLabelValues(kind).Inc()
	if last != "" {
		m.recovered.WithLabelValues(kind, m.errorType(last)).Inc()
	}
}

// Spent counts a job handed to the schedulers.
func (m *Metrics) Spent(kind string, reason mulligan.Reason) {
	if m != nil {
		m.spent.WithLabelValues(kind, string(reason)).Inc()
	}
}

// Dead counts a letter.
func (m *Metrics) Dead(kind string, reason mulligan.Reason) {
	if m != nil {
		m.dead.WithLabelValues(kind, string(reason)).Inc()
	}
}

// Unburied counts a burial that could not be finished.
func (m *Metrics) Unburied(kind string) {
	if m != nil {
		m.unburied.WithLabelValues(kind).Inc()
	}
}

// Stored sets how many messages are in a stream.
func (m *Metrics) Stored(stream string, n uint64) {
	if m != nil {
		m.stored.WithLabelValues(stream).Set(float64(n))
	}
}

// Replayed counts a letter published again.
func (m *Metrics) Replayed(kind string) {
	if m != nil {
		m.replayed.WithLabelValues(kind).Inc()
	}
}

// LostEvidence counts a fact that could not be recorded.
func (m *Metrics) LostEvidence(kind string) {
	if m != nil {
		m.lost.WithLabelValues(kind).Inc()
	}
}

// GivenBack counts a message returned unhandled.
func (m *Metrics) GivenBack(kind, why string) {
	if m != nil {
		m.givenBack.WithLabelValues(kind, why).Inc()
	}
}

// NaksWaiting sets how many short retries of a kind are not due yet.
func (m *Metrics) NaksWaiting(kind string, n int) {
	if m != nil {
		m.nakWaiting.WithLabelValues(kind).Set(float64(n))
	}
}

// BucketAway says whether a bucket brings no answer.
func (m *Metrics) BucketAway(bucket string, away bool) {
	if m == nil {
		return
	}
	m.away.WithLabelValues(bucket).Set(0)
	if away {
		m.away.WithLabelValues(bucket).Set(1)
	}
}

// ClockAhead says how far this machine's clock is ahead of the server's.
func (m *Metrics) ClockAhead(by time.Duration) {
	if m != nil {
		m.ahead.Set(by.Seconds())
	}
}

// FreshHeld says whether this worker pulls no fresh jobs for now.
func (m *Metrics) FreshHeld(held bool) {
	if m == nil {
		return
	}
	m.held.Set(0)
	if held {
		m.held.Set(1)
	}
}
