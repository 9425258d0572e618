// Package consumer runs jobs: it pulls them by downstream, admits them, calls
// their handlers, judges the outcome and settles it, so that a message is
// acknowledged only when its work is done, its successor is stored, or the
// record of its key says that it is done with this payload.
//
// Reading order: Worker.Run, lane.run, Worker.do, admit, fail, mulligan.Policy.Judge, carryOut.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/clock"
	"github.com/mulligan-queue/mulligan/metrics"
)

// A Worker runs the jobs of the kinds that it handles. Set its fields and call
// Handle before Run. Any number of workers share the work.
type Worker struct {
	// Conn is required. Its options should have MaxReconnects(-1), and a
	// PingInterval of a few seconds: a link that goes silent is noticed after up to
	// three of them, and by the default of nats.go that is six minutes.
	Conn *nats.Conn
	// Topology names the streams; the zero Topology is the default.
	Topology mulligan.Topology
	// Concurrency is how many jobs of one downstream run at once; zero means 16.
	Concurrency int
	// Downstreams overrides settings by downstream.
	Downstreams map[string]Downstream
	// Grace is how long Run waits for handlers once its context has ended;
	// zero means 25 seconds.
	Grace time.Duration
	// UserRate bounds the retries of each user over all kinds.
	UserRate budget.Rate
	// Metrics may be nil.
	Metrics *metrics.Metrics
	// Log is silent as its zero value.
	Log zerolog.Logger

	kinds    map[string]*handled
	declared error // the first bad declaration

	js      jetstream.JetStream
	ledger  *dedupe.Ledger
	users   *budget.Users
	tasks   *budget.Tasks
	clock   clock.Clock   // for all that leaves this process
	ahead   time.Duration // of the server's clock, this machine's, as the log has it
	hand    hand
	lanes   []*lane
	running atomic.Bool
	holding atomic.Bool               // too many retries wait: fresh jobs stay in their stream
	barred  atomic.Pointer[time.Time] // from changing consumers, as of then
	moved   sync.Map                  // names of kinds that another worker has declared for another downstream
	suspect chan struct{}             // permit of the one suspect that may run
}

const (
	defaultGrace = 25 * time.Second
	stopWait     = 2 * time.Second // for handlers once their context has ended
)

type handled struct {
	mulligan.Kind
	handler mulligan.Handler
	naks    budget.NakRoom
}

// Handle makes the worker serve a kind. Call it before Run, which reports a
// kind that is not well declared or declared twice.
func (w *Worker) Handle(kind mulligan.Kind, h mulligan.Handler) {
	k, err := kind.Normal()
	switch {
	case err != nil:
	case h == nil:
		err = fmt.Errorf("kind %s has no handler", k.Name)
	case w.kinds[k.Name] != nil:
		err = fmt.Errorf("kind %s is handled twice", k.Name)
	}
	if err != nil {
		w.declared = errors.Join(w.declared, err)
		return
	}
	if w.kinds == nil {
		w.kinds = map[string]*handled{}
	}
	w.kinds[k.Name] = &handled{Kind: k, handler: h}
}

// Run handles jobs until ctx ends. Then it pulls no more, waits up to Grace for
// the handlers that run and gives back what has not started, or waits for a short
// retry, at no cost to it. It returns nil after a clean end, and an error if it
// could not begin or a handler would not stop. While no server answers it waits to
// begin, and logs that.
func (w *Worker) Run(ctx context.Context) error {
	err := call.Patiently(ctx, func() error { return w.prepare(ctx) }, w.Conn.LastError, func(err error) {
		w.Log.Warn().Err(err).Msg("begin; trying again")
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // it was to end before it had begun
	case err != nil:
		return fmt.Errorf("worker: %w", err)
	}
	service, err := w.announce()
	if err != nil {
		return fmt.Errorf("worker: announce: %w", err)
	}
	defer func() { _ = service.Stop() }()
	asked, err := w.tellState()
	if err != nil {
		return fmt.Errorf("worker: announce: %w", err)
	}
	defer func() { _ = asked.Unsubscribe() }()
	for _, l := range w.lanes {
		defer w.Metrics.Watch(l.downstream, l.shown)()
	}
	if unwatch, err := w.Topology.WatchKinds(ctx, w.js, w.compare); err != nil {
		w.Log.Warn().Err(err).Msg("cannot see how other workers declare kinds")
	} else {
		defer unwatch()
	}

	hard, stop := context.WithCancel(context.WithoutCancel(ctx))
	var lanes, keeper sync.WaitGroup
	keeper.Go(func() { w.keep(hard) })
	for _, l := range w.lanes {
		lanes.Go(func() { l.run(ctx, hard) })
		for _, s := range l.sources() {
			keeper.Go(func() { s.watch.Run(ctx) })
		}
	}
	w.Log.Info().Strs("downstreams", w.downstreams()).Int("kinds", len(w.kinds)).Msg("worker runs")
	w.running.Store(true)
	defer w.running.Store(false)
	<-ctx.Done()
	err = w.drain(&lanes, stop)
	stop()
	keeper.Wait()
	if w.Conn.IsConnected() {
		_ = w.Conn.FlushTimeout(stopWait) // lost acknowledgements cost a redelivery, no more
	}
	return err
}

// drain waits for the lanes, for as long as the grace period lasts, then stops
// their handlers. It gives back what is still in hand.
func (w *Worker) drain(lanes *sync.WaitGroup, stop context.CancelFunc) error {
	drained := make(chan struct{})
	go func() {
		lanes.Wait()
		close(drained)
	}()
	grace := w.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	stopped := closes(drained, grace)
	if !stopped {
		stop()
		stopped = closes(drained, stopWait)
	}
	n := w.hand.giveBackAll()
	if stopped {
		return nil
	}
	return fmt.Errorf("worker: %d handlers did not stop when their context ended; their jobs were given back", n)
}

func closes(done <-chan struct{}, within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

func (w *Worker) downstreams() []string {
	seen := map[string]bool{}
	for _, k := range w.kinds {
		seen[k.Downstream] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// Running reports whether Run has begun and has not ended.
func (w *Worker) Running() bool { return w.running.Load() }

// prepare checks the declarations and finds, or makes, what the worker needs.
func (w *Worker) prepare(ctx context.Context) error {
	if w.declared != nil {
		return w.declared
	}
	if len(w.kinds) == 0 {
		return errors.New("no kinds; call Handle before Run")
	}
	if w.Conn == nil {
		return errors.New("no connection; set Conn")
	}
	if err := call.Connected(w.Conn); err != nil {
		return err
	}
	for name, k := range w.kinds {
		if most := mulligan.LargestResult(w.Conn.MaxPayload()); k.MaxResult > most {
			return fmt.Errorf("kind %s: max_result %d is over %d, which is what a record takes on this server: lower it, or raise the server's max_payload", name, k.MaxResult, most)
		}
	}
	var err error
	if w.js, err = jetstream.New(w.Conn); err != nil {
		return err
	}
	if err := w.provision(ctx); err != nil {
		return err
	}
	if w.ledger, err = dedupe.Open(ctx, w.js, w.Topology); err != nil {
		return err
	}
	if w.users, err = budget.Open(ctx, w.js, w.Topology, w.UserRate); err != nil {
		return err
	}
	if w.tasks, err = budget.OpenTasks(ctx, w.js, w.Topology); err != nil {
		return err
	}
	w.ledger.OnAway(w.outage("records"))
	budgets := w.outage("budgets")
	w.users.OnAway(budgets)
	w.users.Follow(&w.clock)
	w.tasks.OnAway(budgets)
	if err := w.weigh(ctx); err != nil {
		return err
	}
	w.hand.held = map[address]*delivery{}
	w.suspect = make(chan struct{}, 1)
	w.lanes = nil
	for _, d := range w.downstreams() {
		l, err := w.lane(ctx, d)
		if err != nil {
			return fmt.Errorf("downstream %s: %w", d, err)
		}
		w.lanes = append(w.lanes, l)
	}
	return nil
}

// provision makes the streams and consumers if this worker may. If it may not,
// they must be there.
func (w *Worker) provision(ctx context.Context) error {
	before := w.Conn.LastError()
	err := w.create(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if refused := w.Conn.LastError(); refused != before && errors.Is(refused, nats.ErrPermissionViolation) {
		err = errors.New(err.Error()) // to who may not a server is silent: no reason to wait for its answer
	}
	for _, d := range w.downstreams() {
		for _, q := range w.Topology.Queues(d) {
			c, missing := w.js.Consumer(ctx, q.Stream, q.Durable)
			if call.Unanswered(missing) {
				return fmt.Errorf("look for the consumer %s of downstream %s on %s: %w", q.Durable, d, q.Stream, missing)
			}
			if missing != nil {
				return fmt.Errorf("no consumer %s for downstream %s on %s and no way to make one: run `mulligan provision --config FILE` with rights to do so (%w)", q.Durable, d, q.Stream, err)
			}
			if lacks := w.lacks(c.CachedInfo().Config, d); lacks != "" {
				return fmt.Errorf("the consumer %s of downstream %s on %s lacks kind %s: run `mulligan provision --config FILE` with rights to do so (%w)", q.Durable, d, q.Stream, lacks, err)
			}
		}
	}
	w.Log.Info().Err(err).Msg("streams and consumers are there, though this worker may not make them")
	return nil
}

func (w *Worker) create(ctx context.Context) error {
	if err := w.Topology.Ensure(ctx, w.js); err != nil {
		return err
	}
	var kinds []mulligan.Kind
	for _, name := range slices.Sorted(maps.Keys(w.kinds)) {
		kinds = append(kinds, w.kinds[name].Kind)
	}
	differed, err := w.Topology.Declare(ctx, w.js, kinds)
	if err != nil {
		return err
	}
	for _, k := range differed {
		w.Log.Warn().Str("kind", k.Name).Msg("declared differently before; this worker's declaration holds now")
	}
	return w.Topology.EnsureConsumers(ctx, w.js, w.downstreams())
}

// compare says so if another worker has declared a kind of this one differently.
func (w *Worker) compare(name string, k *mulligan.Kind, err error) {
	own, ok := w.kinds[name]
	if w.moved.Delete(name); ok && k != nil && k.Downstream != own.Downstream {
		w.moved.Store(name, nil)
	}
	if !ok || err == nil && k != nil && *k == own.Kind {
		return
	}
	line := w.Log.Warn().Str("kind", name).Err(err).Str("effect", string(own.Effect))
	if k != nil {
		line = line.Str("declared_effect", string(k.Effect))
	}
	line.Msg("this kind is declared differently by another worker; both run it as they declare it, so make them agree")
}

// lacks returns the name of a kind of the downstream that the consumer does
// not filter.
func (w *Worker) lacks(cfg jetstream.ConsumerConfig, downstream string) string {
	for name, k := range w.kinds {
		if k.Downstream != downstream {
			continue
		}
		covered := slices.ContainsFunc(append(cfg.FilterSubjects, cfg.FilterSubject), func(f string) bool {
			return strings.HasSuffix(f, "."+name+".*")
		})
		if !covered {
			return name
		}
	}
	return ""
}
