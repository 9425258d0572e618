package consumer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/internal/pause"
	"github.com/mulligan-queue/mulligan/internal/pull"
	"github.com/mulligan-queue/mulligan/internal/watch"
)

const (
	maxPull  = mulligan.MaxPull
	pullWait = mulligan.PullWait / pull.Patience // also how long a shutdown waits for a pull
	pullSpan = 250 * time.Millisecond            // of work that is fetched ahead
	holdWait = time.Second                       // between looks whether fresh jobs may be pulled again
	maxPause = 5 * time.Second                   // between pulls that fail
)

// lane runs the jobs of one downstream: fresh ones, those that were deferred and
// retries that are due are pulled apart, so that none crowds out the others, and
// share its slots.
type lane struct {
	w          *Worker
	downstream string
	slots      int
	fresh      *source
	deferred   *source
	due        *source
	pace       pace
	calls      *budget.Downstream
	peers      atomic.Int32 // live workers of the downstream, this one included
	short      atomic.Bool  // retries that may be due wait for a token
	overdue    atomic.Int32 // handlers that go on though their time is up

	mu     sync.Mutex
	phase  budget.Phase // of the breaker, as it was logged
	spared budget.Cause // as it was logged
}

// source is a consumer and what was pulled from it.
type source struct {
	mulligan.Queue
	lane     *lane
	messages *pull.Source
	pulled   chan *delivery

	watch watch.Watch

	mu      sync.Mutex
	reached uint64     // the place of the last delivery, to any of its loops, or before the worker began
	created time.Time  // when the consumer was made
	began   time.Time  // when it last began anew, as far as is known
	moved   *sync.Cond // stock may be less than somebody waits for
	stock   int        // pulled and not begun, nor let go of by a slot
	waiting int        // pulls that wait until stock is less
	below   int        // than this, or than less
}

func (w *Worker) lane(ctx context.Context, downstream string) (*lane, error) {
	if err := w.Downstreams[downstream].Validate(); err != nil {
		return nil, err
	}
	limits, err := w.limits(downstream).Normal()
	if err != nil {
		return nil, err
	}
	calls, err := budget.NewDownstream(limits, time.Now())
	if err != nil {
		return nil, err
	}
	l := &lane{w: w, downstream: downstream, slots: limits.Slots, calls: calls, phase: budget.PhaseClosed}
	l.peers.Store(1)
	l.fresh = l.source(w.Topology.FreshQueue(downstream))
	l.deferred = l.source(w.Topology.DeferredQueue(downstream))
	l.due = l.source(w.Topology.DueQueue(downstream))
	for _, s := range l.sources() {
		c, err := w.js.Consumer(ctx, s.Stream, s.Durable)
		if err != nil {
			return nil, err
		}
		s.reached, s.created, s.began = c.CachedInfo().Delivered.Consumer, c.CachedInfo().Created, c.CachedInfo().Created
	}
	return l, nil
}

func (l *lane) sources() []*source { return []*source{l.fresh, l.deferred, l.due} }

func (l *lane) source(q mulligan.Queue) *source {
	// All its loops together never pull more than this ahead, so sending never blocks.
	s := &source{Queue: q, lane: l, messages: pull.From(l.w.js, q.Stream, q.Durable), pulled: make(chan *delivery, 4*maxPull)}
	s.moved = sync.NewCond(&s.mu)
	s.watch = watch.Watch{Conn: l.w.Conn, JS: l.w.js, Log: l.w.Log.With().Str("downstream", l.downstream).Logger(), Stream: q.Stream, Durable: q.Durable,
		Own: s.own, Filters: s.filters, Seen: s.see, Mend: func(ctx context.Context) (bool, error) { return l.w.mend(ctx, l.downstream) }}
	return s
}

// run pulls and runs jobs until ctx ends and those begun have ended; hard ends
// the handlers. Two overlapping pulls of fresh jobs keep the slots fed.
func (l *lane) run(ctx, hard context.Context) {
	var pulls, slots sync.WaitGroup
	for _, s := range l.sources() {
		wake := context.AfterFunc(ctx, s.wake)
		defer wake()
	}
	for _, s := range []*source{l.fresh, l.fresh, l.deferred} {
		pulls.Go(func() { l.pull(ctx, s) })
	}
	pulls.Go(func() { l.pullDue(ctx) })
	for range l.slots {
		l.open(ctx, hard, &slots)
	}
	pulls.Wait()
	for _, s := range l.sources() {
		s.messages.Close()
		close(s.pulled)
		for d := range s.pulled {
			l.giveBack(d, "shutdown")
		}
	}
	slots.Wait()
}

// open runs a slot, and another in its place should a handler end its goroutine.
func (l *lane) open(ctx, hard context.Context, slots *sync.WaitGroup) {
	slots.Go(func() {
		ended := false
		defer func() {
			if !ended && ctx.Err() == nil {
				l.w.Log.Error().Str("downstream", l.downstream).Msg("a handler ended its goroutine (runtime.Goexit); its job comes back")
				l.open(ctx, hard, slots)
			}
		}()
		l.slot(ctx, hard)
		ended = true
	})
}

// slot runs one job after the other.
func (l *lane) slot(ctx, hard context.Context) {
	hard, cancel := context.WithCancel(hard) // each slot its own: children of one contend for its lock
	defer cancel()
	alarm := &alarm{lane: l}
	defer alarm.end()
	for ctx.Err() == nil {
		var d *delivery
		select {
		case d = <-l.fresh.pulled:
		case d = <-l.deferred.pulled:
		case d = <-l.due.pulled:
		case <-ctx.Done():
			return
		}
		if d == nil { // closed
			return
		}
		d.alarm = alarm
		l.start(ctx, hard, d)
	}
}

// start waits until d may start, and takes it through the worker.
func (l *lane) start(ctx, hard context.Context, d *delivery) {
	defer l.leave(d)
	if !l.w.hand.take(d) {
		d.from.took()
		return // given back, for having waited too long
	}
	err := l.enter(ctx, d)
	d.from.took() // not before: what waits in the slots is in stock, too
	if err != nil {
		l.giveBack(d, "shutdown")
		return
	}
	l.do(hard, d)
}

func (l *lane) do(hard context.Context, d *delivery) {
	start := time.Now()
	if l.w.hand.begin(d, start) {
		l.w.do(hard, d)
		l.pace.note(time.Since(start))
	}
}

func (l *lane) giveBack(d *delivery, why string) {
	if l.w.hand.begin(d, time.Now()) {
		// Let go of before: it may be delivered again at once, to this worker, too.
		_ = l.w.hand.release(d).Nak() // lost, it comes back after AckWait
		l.w.Metrics.GivenBack(d.env.Kind, why)
	}
	l.leave(d)
}

// pull fetches jobs that need no token until ctx ends, but none while the
// downstream is held.
func (l *lane) pull(ctx context.Context, s *source) {
	for fails := 0; l.calls.Await(ctx, l.calls.Held) == nil; {
		if s == l.fresh && l.w.holding.Load() {
			_ = pause.For(ctx, holdWait)
			continue
		}
		n := l.ahead(time.Now())
		if !s.await(ctx, n) {
			return
		}
		last := s.last()
		fails = l.recover(ctx, s, l.fetch(ctx, s, n, func(d *delivery) { last = s.follow(d, last) }), fails)
	}
}

// ahead is how many jobs to pull at once: half of what the slots will start
// within pullSpan, but no more than may start while the downstream recovers.
func (l *lane) ahead(now time.Time) int {
	if limit := l.calls.State(now).Limit; limit < l.slots {
		return min(max(limit, 1), maxPull/2)
	}
	return max(l.pace.ahead(l.slots)/2, 1)
}

// pullDue fetches retries that are due until ctx ends: not before there are
// tokens for them, and none while the downstream is held. A retry without a
// token stays where it is.
func (l *lane) pullDue(ctx context.Context) {
	fails, more := 0, 1
	for {
		n := min(more, l.ahead(time.Now()))
		if !l.due.await(ctx, n) {
			return
		}
		tokens := l.tokens(ctx, n)
		if len(tokens) == 0 {
			return
		}
		more = 1
		err := l.fetch(ctx, l.due, len(tokens), func(d *delivery) {
			d.token, tokens = tokens[0], tokens[1:]
			more = int(min(max(d.ahead, 1), maxPull))
		})
		for _, t := range tokens {
			t.Back(time.Now())
		}
		fails = l.recover(ctx, l.due, err, fails)
	}
}

// fetch pulls up to n messages and hands each to take before it is in stock, also
// what runs here already. What arrives after ctx has ended is given back.
func (l *lane) fetch(ctx context.Context, s *source, n int, take func(d *delivery)) error {
	// A pull that is under way tells of another consumer. In a shorter time without
	// one no consumer is made again and delivers more than the one before it.
	unheard := s.watch.Pulls.Begin() > time.Second
	err := s.messages.Each(ctx, n, pullWait, func(msg *nats.Msg) {
		s.watch.Pulls.Brought()
		if unheard {
			unheard = false
			s.compare(ctx)
		}
		d := s.open(msg, time.Now())
		take(d)
		if !l.w.hand.add(d) {
			d.token.Back(time.Now())
			return
		}
		if ctx.Err() != nil {
			l.giveBack(d, "shutdown")
			return
		}
		s.add()
		select {
		case s.pulled <- d:
		case <-ctx.Done():
			l.giveBack(d, "shutdown")
		}
	})
	s.watch.Pulls.End(err)
	return err
}

// recover waits after a pull that failed, and makes the consumer again if
// somebody has deleted it. It returns how many pulls have failed in a row.
func (l *lane) recover(ctx context.Context, s *source, err error, fails int) int {
	if err == nil || ctx.Err() != nil {
		return 0
	}
	fails++
	if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, nats.ErrNoResponders) {
		s.beginsAnew()
		_, failed := l.w.mend(ctx, l.downstream)
		err = errors.Join(err, failed)
	}
	l.w.Log.Warn().Err(err).Str("downstream", l.downstream).Str("stream", s.Stream).Msg("pull; trying again")
	_ = pause.For(ctx, min(time.Duration(fails)*250*time.Millisecond, maxPause))
	return fails
}

// follow notes whether d may have been delivered before, though the consumer takes
// it for new, and returns its place among the consumer's deliveries; last is that
// of the one before it in its pull, or before that. What a pull brings has places
// behind all that had come when it began, and they ascend, unless the consumer
// began anew: it was made again, reset, or is led by a server that had not heard of
// all that was delivered.
func (s *source) follow(d *delivery, last uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.nth <= last {
		s.began, s.reached = s.lane.w.clock.Now(), d.nth
	}
	s.reached = max(s.reached, d.nth)
	d.old = !d.stored.After(s.began)
	return d.nth
}

// last is the place of the last delivery that any pull has brought.
func (s *source) last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached
}

// compare asks whether the consumer is the one that is known. Without an answer it
// may be another.
func (s *source) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	info, err := mulligan.ConsumerInfo(ctx, s.lane.w.js, s.Stream, s.Durable)
	if err != nil {
		s.beginsAnew()
		return
	}
	s.see(info)
}

// see notes whether the consumer was made since it was looked at before.
func (s *source) see(info *jetstream.ConsumerInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !info.Created.Equal(s.created) {
		s.created, s.began = info.Created, s.lane.w.clock.Now()
	}
}

// beginsAnew notes that there will be another consumer: what is stored by now may
// have been delivered by this one.
func (s *source) beginsAnew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = s.lane.w.clock.Now()
}

func (s *source) add() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stock++
}

func (s *source) took() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stock--; s.stock < s.below {
		s.moved.Broadcast()
	}
}

func (s *source) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved.Broadcast()
}

// await blocks while n or more messages wait here, and reports false once ctx
// has ended.
func (s *source) await(ctx context.Context, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	s.below = max(s.below, n)
	for s.stock >= n && ctx.Err() == nil {
		s.moved.Wait()
	}
	if s.waiting--; s.waiting == 0 {
		s.below = 0
	}
	return ctx.Err() == nil
}

// pace remembers how long the last jobs took. It is safe for concurrent use.
type pace struct {
	took [64]atomic.Int64
	n    atomic.Uint64
}

func (p *pace) note(d time.Duration) {
	n := p.n.Add(1)
	p.took[n%uint64(len(p.took))].Store(int64(max(d, 1)))
}

// ahead is how many messages to have pulled: what the slots start within pullSpan,
// going by how long the last jobs took on average.
func (p *pace) ahead(slots int) int {
	var sum, n time.Duration
	for i := range p.took {
		if took := time.Duration(p.took[i].Load()); took > 0 {
			sum, n = sum+took, n+1
		}
	}
	if n == 0 {
		return slots
	}
	return min(max(int(float64(slots)*float64(pullSpan)/float64(sum/n)), slots), maxPull)
}
