// Package scheduler moves spent jobs to the dead letters and carries out
// replays.
//
// Reading order: Scheduler.Run, Scheduler.bury, Scheduler.Replay.
package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/clock"
	"github.com/mulligan-queue/mulligan/internal/pause"
	"github.com/mulligan-queue/mulligan/internal/pull"
	"github.com/mulligan-queue/mulligan/internal/watch"
	"github.com/mulligan-queue/mulligan/metrics"
)

// ServiceName is under which every running scheduler can be found with NATS
// service discovery.
const ServiceName = "mulligan-scheduler"

// A Scheduler buries spent jobs and replays dead letters. Any number run side by
// side. Set its fields before the first call; it is safe for concurrent use.
type Scheduler struct {
	// Conn is required. Its options should have MaxReconnects(-1), and a
	// PingInterval of a few seconds, as consumer.Worker says.
	Conn *nats.Conn
	// Topology names the streams; the zero Topology is the default.
	Topology mulligan.Topology
	// Metrics may be nil.
	Metrics *metrics.Metrics
	// Log is silent as its zero value.
	Log zerolog.Logger

	clock   clock.Clock // for all that leaves this process
	running atomic.Bool
	burying atomic.Int32 // spent jobs

	mu     sync.Mutex
	js     jetstream.JetStream
	ledger *dedupe.Ledger
	dead   jetstream.Stream
}

const (
	pullMax    = 64
	pullWait   = time.Second
	weighEvery = 10 * time.Second
	buryAgain  = 5 * time.Second // after a burial that could not be finished
	replyWait  = 5 * time.Second // for one answer of the server
)

// Run buries spent jobs until ctx ends and the burials begun are finished. It
// returns nil then, and an error if it could not begin. While no server answers it
// waits to begin, and logs that.
func (s *Scheduler) Run(ctx context.Context) error {
	err := call.Patiently(ctx, func() error { return s.begin(ctx) }, s.Conn.LastError, func(err error) {
		s.Log.Warn().Err(err).Msg("begin; trying again")
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // it was to end before it had begun
	case err != nil:
		return fmt.Errorf("scheduler: %w", err)
	}
	spent := pull.From(s.js, s.Topology.RetriesStream(), mulligan.SchedulerConsumer)
	defer spent.Close()
	host, _ := os.Hostname() // empty if unknown
	service, err := micro.AddService(s.Conn, micro.Config{Name: ServiceName, Version: "1.0.0", Description: "buries spent jobs",
		Metadata: map[string]string{"prefix": s.Topology.JobsRoot(), "host": host, "pid": fmt.Sprint(os.Getpid())}})
	if err != nil {
		return fmt.Errorf("scheduler: announce: %w", err)
	}
	defer func() { _ = service.Stop() }()
	look := s.watch()
	defer s.Metrics.WatchSpent(look.Since)()
	var keepers sync.WaitGroup
	defer keepers.Wait()
	keepers.Go(func() { s.weigh(ctx) })
	keepers.Go(func() { look.Run(ctx) })
	s.Log.Info().Msg("scheduler runs")
	s.running.Store(true)
	defer s.running.Store(false)
	for fails := 0; ctx.Err() == nil; {
		err := s.round(ctx, spent, &look.Pulls)
		if err == nil || ctx.Err() != nil {
			fails = 0
			continue
		}
		fails++
		s.Log.Warn().Err(err).Msg("pull spent jobs; trying again")
		_ = s.ensure(ctx) // somebody may have deleted it
		_ = pause.For(ctx, min(time.Duration(fails)*250*time.Millisecond, buryAgain))
	}
	return nil
}

// round pulls some spent jobs and buries them, several at once.
func (s *Scheduler) round(ctx context.Context, spent *pull.Source, pulls *watch.Pulls) error {
	var burials sync.WaitGroup
	defer burials.Wait()
	pulls.Begin()
	err := spent.Each(ctx, pullMax, pullWait, func(msg *nats.Msg) {
		pulls.Brought()
		s.burying.Add(1)
		burials.Go(func() {
			defer s.burying.Add(-1)
			s.bury(context.WithoutCancel(ctx), msg)
		})
	})
	pulls.End(err)
	return err
}

// watch looks whether spent jobs wait in vain.
func (s *Scheduler) watch() *watch.Watch {
	q := s.Topology.SpentQueue()
	return &watch.Watch{
		Conn: s.Conn, JS: s.js, Log: s.Log, Stream: q.Stream, Durable: q.Durable,
		Own:     func() watch.Own { return watch.Own{Busy: s.burying.Load() > 0} },
		Filters: func() []string { return []string{q.Root + ".>"} },
		Mend:    func(ctx context.Context) (bool, error) { return s.Topology.MendScheduler(ctx, s.js) },
	}
}

// weigh shows, every few seconds, how much each stream holds.
func (s *Scheduler) weigh(ctx context.Context) {
	for ctx.Err() == nil {
		for _, name := range []string{s.Topology.JobsStream(), s.Topology.RetriesStream(), s.Topology.DeadStream()} {
			_ = s.look(ctx, name) // away: the last figure stands
		}
		_ = pause.For(ctx, weighEvery)
	}
}

// look shows how much a stream holds. The answer also has the time by the clock
// that counts: that of the leader of the retries, which fires the schedules.
func (s *Scheduler) look(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	asked := time.Now()
	stream, err := s.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	if name == s.Topology.RetriesStream() {
		s.Metrics.ClockAhead(s.clock.Set(clock.Sample{Asked: asked, Answered: time.Now(), Server: stream.CachedInfo().TimeStamp}))
	}
	s.Metrics.Stored(name, stream.CachedInfo().State.Msgs)
	return nil
}

// Running reports whether Run has begun and has not ended.
func (s *Scheduler) Running() bool { return s.running.Load() }

func (s *Scheduler) begin(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.ensure(ctx); err != nil {
		return err
	}
	return s.look(ctx, s.Topology.RetriesStream()) // no burial without the server's clock
}

// ensure makes the streams and the schedulers' consumer if this process may, and
// reports whether there is that consumer.
func (s *Scheduler) ensure(ctx context.Context) error {
	ensured := s.Topology.Ensure(ctx, s.js)
	_, err := s.js.Consumer(ctx, s.Topology.RetriesStream(), mulligan.SchedulerConsumer)
	if call.Unanswered(err) {
		return fmt.Errorf("look for the consumer of spent jobs: %w", err)
	}
	if err != nil {
		return fmt.Errorf("no consumer for spent jobs: run `mulligan provision` with rights to make one: %w", errors.Join(err, ensured))
	}
	return nil
}

func (s *Scheduler) connect(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil {
		return nil
	}
	if s.Conn == nil {
		return errors.New("no connection; set Conn")
	}
	if err := call.Connected(s.Conn); err != nil {
		return fmt.Errorf("%w: %w", mulligan.ErrUnavailable, err)
	}
	js, err := jetstream.New(s.Conn)
	if err != nil {
		return err
	}
	dead, err := js.Stream(ctx, s.Topology.DeadStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err := s.Topology.Ensure(ctx, js); err != nil {
			return fmt.Errorf("%w: %w", mulligan.ErrNoTopology, err)
		}
		dead, err = js.Stream(ctx, s.Topology.DeadStream())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", mulligan.ErrUnavailable, err)
	}
	ledger, err := dedupe.Open(ctx, js, s.Topology)
	if err != nil {
		return err
	}
	s.js, s.ledger, s.dead = js, ledger, dead
	return nil
}

// tell sends a copy of what happened to whoever observes. It may be lost.
func (s *Scheduler) tell(l *mulligan.Letter, what string) {
	e := mulligan.Event{At: s.clock.Now(), Event: what, Kind: l.Kind, ID: l.ID, Attempt: l.Attempts, Reason: l.Reason, ErrorType: l.ErrorType, Error: l.Error}
	b, err := json.Marshal(e)
	if err != nil {
		return
	}
	_ = s.Conn.Publish(mulligan.Subject(s.Topology.EventsRoot(), l.Kind, mulligan.SafeToken(l.Token)), b) // a copy only
}
