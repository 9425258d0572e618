package consumer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/clock"
)

// ServiceName is under which every worker can be found with NATS service
// discovery.
const ServiceName = "mulligan-worker"

// maxRetriesWaiting is how many messages may wait for a retry before workers
// pull no fresh jobs.
const maxRetriesWaiting = 1_000_000

// announce makes the worker discoverable, with what it serves.
func (w *Worker) announce() (micro.Service, error) {
	host, _ := os.Hostname() // empty if unknown
	var kinds, declared []string
	for _, name := range slices.Sorted(maps.Keys(w.kinds)) {
		k := w.kinds[name].Kind
		kinds = append(kinds, name)
		declared = append(declared, name+"="+string(k.Effect)+":"+k.Fingerprint())
	}
	return micro.AddService(w.Conn, micro.Config{
		Name: ServiceName, Version: "1.0.0", Description: "runs jobs",
		Metadata: map[string]string{
			"prefix": w.Topology.JobsRoot(), "downstreams": strings.Join(w.downstreams(), ","), "kinds": strings.Join(kinds, ","),
			"declared": strings.Join(declared, ","), // as what, for whoever compares
			"host":     host, "pid": fmt.Sprint(os.Getpid()),
		},
	})
}

// keep does what is due every few seconds while messages are in hand.
func (w *Worker) keep(ctx context.Context) {
	tick := time.NewTicker(mulligan.ProgressEvery)
	defer tick.Stop()
	w.census(ctx)
	w.warn()
	for ; ; w.census(ctx) {
		_ = w.weigh(ctx) // the next time
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for name, k := range w.kinds {
				w.Metrics.NaksWaiting(name, k.naks.Waiting(now))
			}
			for _, d := range w.hand.sign(now) {
				d.token.Back(now)
				w.Metrics.GivenBack(d.env.Kind, "waited")
			}
		}
	}
}

// census counts the live workers of each downstream: they share its floor of
// retries.
func (w *Worker) census(ctx context.Context) {
	const within = 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	inbox := w.Conn.NewRespInbox()
	sub, err := w.Conn.SubscribeSync(inbox)
	if err != nil {
		return // closing
	}
	defer func() { _ = sub.Unsubscribe() }()
	subject, err := micro.ControlSubject(micro.PingVerb, ServiceName, "")
	if err != nil || w.Conn.PublishRequest(subject, inbox, nil) != nil {
		return
	}
	workers := map[string]int{} // by downstream
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			break
		}
		var p micro.Ping
		if json.Unmarshal(msg.Data, &p) != nil || p.Metadata["prefix"] != w.Topology.JobsRoot() {
			continue
		}
		for _, d := range strings.Split(p.Metadata["downstreams"], ",") {
			workers[d]++
		}
	}
	for _, l := range w.lanes {
		n := max(workers[l.downstream], 1)
		l.peers.Store(int32(n))
		l.calls.Share(time.Now(), n)
	}
}

// weigh decides whether fresh jobs may be pulled: the stream of retries has no
// limit of its own. Its leader's clock is the one that counts. Without an answer
// what was decided before holds.
func (w *Worker) weigh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	asked := time.Now()
	s, err := w.js.Stream(ctx, w.Topology.RetriesStream())
	if err != nil {
		return fmt.Errorf("look at %s: %w", w.Topology.RetriesStream(), err)
	}
	w.setClock(clock.Sample{Asked: asked, Answered: time.Now(), Server: s.CachedInfo().TimeStamp})
	hold := s.CachedInfo().State.Msgs >= maxRetriesWaiting
	if w.holding.Swap(hold) != hold {
		w.Log.Warn().Bool("held", hold).Uint64("retries_waiting", s.CachedInfo().State.Msgs).Msg("fresh jobs are held while too many retries wait")
	}
	w.Metrics.FreshHeld(hold)
	return nil
}

// setClock puts the worker's clock right by that of the server which fires the
// schedules: a retry planned by a clock that is behind would come before its
// delay was over, and workers share the places of a user.
func (w *Worker) setClock(s clock.Sample) {
	ahead := w.clock.Set(s)
	w.Metrics.ClockAhead(ahead)
	if was := w.ahead; (was == 0) != (ahead == 0) || (was-ahead).Abs() > time.Second {
		w.ahead = ahead
		w.Log.Warn().Stringer("ahead", ahead.Round(time.Millisecond)).Msg("this machine's clock was compared with the server's, which is the one that counts; if it is off, have it set (NTP)")
	}
}
