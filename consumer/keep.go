package consumer

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/mulligan-queue/mulligan"
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
	for {
		w.census(ctx)
		w.weigh(ctx)
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for name, k := range w.kinds {
				w.Metrics.NaksWaiting(name, k.naks.waiting(now))
			}
			for _, d := range w.hand.sign(now) {
				w.Metrics.GivenBack(d.env.Kind, "waited")
			}
		}
	}
}

// census counts the live workers, who share the rate of naks.
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
	n := int32(0)
	for {
		if _, err := sub.NextMsgWithContext(ctx); err != nil {
			break
		}
		n++
	}
	w.peers.Store(max(n, 1))
}

// weigh decides whether fresh jobs may be pulled: the stream of retries has no
// limit of its own.
func (w *Worker) weigh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	s, err := w.js.Stream(ctx, w.Topology.RetriesStream())
	if err != nil {
		return // what was decided before holds
	}
	hold := s.CachedInfo().State.Msgs >= maxRetriesWaiting
	if w.holding.Swap(hold) != hold {
		w.Log.Warn().Bool("held", hold).Uint64("retries_waiting", s.CachedInfo().State.Msgs).Msg("fresh jobs are held while too many retries wait")
	}
	w.Metrics.FreshHeld(hold)
}
