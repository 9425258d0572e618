package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// lookEvery is how often a worker looks whether jobs wait in vain. What is seen
// at two looks is so: within 30 s, the server's silence included.
const lookEvery = 6 * time.Second

// mendEvery is how often a worker tries to put right what is still wrong.
const mendEvery = time.Minute

// Why jobs wait in vain; the set is closed, the same in metrics and states.
const (
	stuckMissing     = "missing"     // there is no consumer
	stuckFault       = "config"      // the consumer is not as it should be
	stuckPassed      = "passed_over" // jobs lie where the consumer looks no more
	stuckPaused      = "paused"      // an operator paused the consumer
	stuckRefused     = "refused"     // every request fails
	stuckUndelivered = "undelivered" // the server is asked and gives nothing
	stuckNoAnswer    = "no_answer"   // the server says nothing
	stuckHandlers    = "handlers"    // every slot has a handler that does not end
	stuckNotAsking   = "not_asking"  // the worker does not ask, and has no reason
)

// Stuck says that jobs of a stream wait in vain.
type Stuck struct {
	Stream string `json:"stream"`
	Why    string `json:"why"` // missing, config, passed_over, paused, refused, undelivered, no_answer, handlers or not_asking
	// Cause is the same in words, and Do what to do about it.
	Cause string    `json:"cause"`
	Do    string    `json:"do"`
	Since time.Time `json:"since"`
}

// sight is what one look finds. What belongs to the consumer is zero if it was
// not asked about.
type sight struct {
	// In this worker, since the look before.
	overdue bool  // every slot has a handler whose time is up
	held    bool  // the downstream is held, or retries have no token
	busy    bool  // jobs are in hand
	asked   int   // pulls that were under way
	came    int   // messages that they brought
	refused error // how the last one failed

	asleep  bool  // the consumer was not asked about
	missing error // that there is none
	silent  error // that there was no answer
	fault   string
	passed  string // the subject of a message
	paused  bool
	waiting uint64 // jobs to be delivered
	unacked int
	moved   bool // it has delivered since the look before, to whomever
}

// why judges a sight: why jobs wait in vain, or nothing. A downstream that is
// held, retries without tokens and slots at work are no fault, and neither is a
// consumer that gives its jobs to others.
func (s sight) why() string {
	switch {
	case s.overdue:
		return stuckHandlers
	case s.held || s.asleep:
		return ""
	case s.missing != nil:
		return stuckMissing
	case s.silent != nil && s.came == 0:
		return stuckNoAnswer
	case s.fault != "":
		return stuckFault
	case s.passed != "":
		return stuckPassed
	case s.paused && (s.waiting > 0 || s.unacked > 0):
		return stuckPaused
	case s.came > 0 || s.moved || s.waiting == 0:
		return ""
	case s.refused != nil:
		return stuckRefused
	case s.asked > 0:
		return stuckUndelivered
	case s.busy:
		return ""
	}
	return stuckNotAsking
}

// quiet reports whether jobs may be waiting though this worker could run some.
func (s sight) quiet() bool { return s.came == 0 && (s.asked > 0 || !s.busy) && !s.held }

// pulls counts the pulls of a source and what they have met.
type pulls struct {
	mu    sync.Mutex
	open  int // under way
	asked int
	came  int
	err   error // of the last one
}

func (p *pulls) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	p.open++
}

func (p *pulls) brought() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came++
}

func (p *pulls) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	p.err = err
}

// since returns the counts since it was called before.
func (p *pulls) since() (asked, came int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, came = p.asked, p.came
	p.asked, p.came = p.open, 0
	return asked, came, p.err
}

// watch looks whether jobs of the source wait in vain, until ctx ends: every time
// if nothing comes, and every other time while jobs flow, since some may lie where
// the consumer does not look.
func (s *source) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	suspected := ""
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		look := s.look()
		if suspected != "" || look.quiet() || n%2 == 0 {
			s.ask(ctx, &look)
		}
		if ctx.Err() != nil {
			return
		}
		before := suspected
		suspected = look.why()
		if suspected == stuckPassed {
			suspected += " " + look.passed // another time another job is one that is just being removed
		}
		if before == suspected || before != "" && look.passed == "" || suspected == "" {
			s.conclude(ctx, look)
		}
	}
}

// look sees what this worker knows itself.
func (s *source) look() sight {
	l := s.lane
	d := l.state(time.Now())
	look := sight{asleep: true, held: d.Held != "" || s == l.fresh && l.w.holding.Load() || s == l.due && l.short.Load(), busy: d.InHand > 0}
	look.overdue = s == l.fresh && int(l.overdue.Load()) >= l.slots // said once, with the fresh jobs
	look.asked, look.came, look.refused = s.pulls.since()
	return look
}

// ask adds what the server knows.
func (s *source) ask(ctx context.Context, look *sight) {
	look.asleep = false
	if !s.lane.w.Conn.IsConnected() {
		look.silent = nats.ErrDisconnected
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	info, err := mulligan.ConsumerInfo(ctx, s.lane.w.js, s.Stream, s.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		look.missing = err
		return
	case err != nil:
		look.silent = err
		return
	}
	look.fault = mulligan.ConsumerFault(info.Config, s.filters())
	look.paused, look.waiting, look.unacked = info.Paused, info.NumPending, info.NumAckPending
	look.moved, s.delivered = info.Delivered.Consumer != s.delivered, info.Delivered.Consumer
	if look.fault == "" {
		look.passed, _ = mulligan.PassedOver(ctx, s.lane.w.js, info) // no answer: the next look asks again
	}
}

// filters are what the consumer needs for this worker's kinds.
func (s *source) filters() (all []string) {
	for name, k := range s.lane.w.kinds {
		if _, moved := s.lane.w.moved.Load(name); k.Downstream == s.lane.downstream && !moved {
			all = append(all, s.Filter(name))
		}
	}
	return all
}

// conclude says when jobs begin to wait in vain and when that is over, and mends
// what can be mended.
func (s *source) conclude(ctx context.Context, look sight) {
	why, was, now := look.why(), s.stuck.Load(), time.Now()
	log := s.lane.w.Log.With().Str("downstream", s.lane.downstream).Str("stream", s.Stream).Logger()
	if why == "" {
		if was != nil {
			s.stuck.Store(nil)
			log.Info().Str("why", was.Why).Stringer("stuck", now.Sub(was.Since).Round(time.Second)).Msg("jobs no longer wait in vain")
		}
		return
	}
	found := Stuck{Stream: s.Stream, Why: why, Since: now.Add(-lookEvery)}
	found.Cause, found.Do = s.explain(look, why)
	fresh := was == nil || was.Why != why
	if was != nil {
		found.Since = was.Since
	}
	s.stuck.Store(&found)
	if fresh {
		log.Error().Str("why", why).Str("do", found.Do).Msg("stuck: " + found.Cause)
	}
	mendable := why == stuckMissing || why == stuckFault || why == stuckPassed
	if !mendable || !fresh && now.Sub(s.mended) < mendEvery {
		return
	}
	s.mended = now
	switch err := s.lane.w.mend(ctx, s.lane.downstream); {
	case err == nil:
		log.Warn().Str("why", why).Msg("the consumer was put right")
	case fresh:
		log.Error().Err(err).Str("why", why).Str("do", found.Do).Msg("this worker cannot put the consumer right")
	}
}

// explain says a reason in words, and what to do.
func (s *source) explain(look sight, why string) (cause, do string) {
	name := "consumer " + s.Durable + " of " + s.Stream
	const provision = "nothing if a worker puts it right; else run `mulligan provision --config FILE`"
	switch why {
	case stuckHandlers:
		return "every slot has a handler that goes on though its time is up", "restart this worker, and have the handlers end with their context"
	case stuckMissing:
		return fmt.Sprintf("there is no %s: %v", name, look.missing), provision
	case stuckNoAnswer:
		return fmt.Sprintf("the server says nothing about %s: %v", name, look.silent), "see whether the NATS servers are up, and whether the stream has a leader, with `nats stream info " + s.Stream + "`"
	case stuckFault:
		return "the " + name + " is not as it should be: " + look.fault, provision
	case stuckPassed:
		return fmt.Sprintf("the %s has passed over jobs, such as %.120s", name, look.passed), provision
	case stuckPaused:
		return "the " + name + " is paused", "if it should go on, run `nats consumer resume " + s.Stream + " " + s.Durable + "`"
	case stuckRefused:
		return fmt.Sprintf("%d jobs wait, but no request brings any: %v", look.waiting, look.refused), "check that this worker may ask, and see who else does, with `nats consumer info " + s.Stream + " " + s.Durable + "`"
	case stuckUndelivered:
		return fmt.Sprintf("%d jobs wait, this worker asks, and the server gives none", look.waiting), "have another server lead it, with `nats consumer cluster step-down " + s.Stream + " " + s.Durable + "`; if it is alone, restart it"
	}
	return fmt.Sprintf("%d jobs wait, and this worker does not ask for any", look.waiting), "restart this worker, and report it with its log"
}

// errBarred says that a worker with narrow rights mends nothing.
var errBarred = errors.New("this worker has no right to change consumers")

// mend makes the consumers of a downstream as they should be. A worker that was
// refused it does not try again.
func (w *Worker) mend(ctx context.Context, downstream string) error {
	if w.barred.Load() {
		return errBarred
	}
	before := w.Conn.LastError()
	err := w.Topology.EnsureConsumers(ctx, w.js, []string{downstream})
	if refused := w.Conn.LastError(); err != nil && refused != before && errors.Is(refused, nats.ErrPermissionViolation) {
		w.barred.Store(true)
		return fmt.Errorf("%w: %w", errBarred, refused)
	}
	return err
}
