// Package watch looks whether what lies in a consumer waits in vain, says so, and
// has put right what can be.
//
// Reading order: Watch.Run, sight.why, Watch.conclude.
package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

const (
	// lookEvery is how often a process looks whether jobs wait in vain. What is seen
	// at two looks is so: within 30 s, the server's silence included.
	lookEvery = 6 * time.Second
	// MendEvery is how often a process tries to put right what is still wrong.
	MendEvery  = time.Minute
	mendSpread = 2 * time.Second // within which all who see it begin to
	answerWait = 5 * time.Second // for one answer
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

// A Watch looks at one consumer, for a process that pulls from it. Set its fields
// before Run.
type Watch struct {
	Conn            *nats.Conn
	JS              jetstream.JetStream
	Log             zerolog.Logger
	Stream, Durable string
	// Pulls counts those of the process.
	Pulls Pulls
	// Own says what else the process knows itself.
	Own func() Own
	// Filters are what the consumer needs for the process.
	Filters func() []string
	// Seen, if set, is told what the server says of the consumer at every look.
	Seen func(info *jetstream.ConsumerInfo)
	// Mend makes the consumer as it should be, and reports whether there was
	// anything to do.
	Mend func(ctx context.Context) (mended bool, err error)

	stuck     atomic.Pointer[Stuck] // nil while no jobs wait in vain
	delivered uint64                // by the consumer, when it was looked at
	suspect   mulligan.Passed       // seems to be passed over, as of the last look
	tried     time.Time             // when mending was
}

// Stuck says which jobs wait in vain; nil if none do. It is safe for concurrent use.
func (w *Watch) Stuck() *Stuck { return w.stuck.Load() }

// Since is the same for metrics: since when, by why.
func (w *Watch) Since() map[string]time.Time {
	if s := w.Stuck(); s != nil {
		return map[string]time.Time{s.Why: s.Since}
	}
	return nil
}

// Run looks until ctx ends: every time if nothing comes, and every other time while
// jobs flow, since some may lie where the consumer does not look.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	suspected := ""
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		look := w.look()
		if suspected != "" || w.suspect.Seq != 0 || look.quiet() || n%2 == 0 {
			w.ask(ctx, &look)
		}
		if ctx.Err() != nil {
			return
		}
		before := suspected
		suspected = look.why()
		if before != "" || suspected == "" || suspected == stuckPassed { // which took two looks
			w.conclude(ctx, look)
		}
	}
}

// look sees what this process knows itself.
func (w *Watch) look() sight {
	s := sight{asleep: true, Own: w.Own()}
	s.asked, s.came, s.refused = w.Pulls.since()
	return s
}

// ask adds what the server knows.
func (w *Watch) ask(ctx context.Context, look *sight) {
	look.asleep = false
	if !w.Conn.IsConnected() {
		look.silent = nats.ErrDisconnected
		return
	}
	info, err := w.info(ctx)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		look.missing = err
		return
	case err != nil:
		look.silent = err
		return
	}
	if w.Seen != nil {
		w.Seen(info)
	}
	look.fault = mulligan.ConsumerFault(info.Config, w.Filters())
	look.paused, look.waiting, look.unacked = info.Paused, info.NumPending, info.NumAckPending
	look.moved, w.delivered = info.Delivered.Consumer != w.delivered, info.Delivered.Consumer
	if look.fault == "" {
		look.passed = w.passed(ctx, info)
	}
}

func (w *Watch) info(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	return mulligan.ConsumerInfo(ctx, w.JS, w.Stream, w.Durable)
}

// passed is the subject of a job that the consumer has passed over: that seemed so
// at the look before, and still lies there. Without an answer it is as it was, and
// the next look asks again.
func (w *Watch) passed(ctx context.Context, info *jetstream.ConsumerInfo) (subject string) {
	if w.suspect.Seq != 0 {
		within, cancel := context.WithTimeout(ctx, answerWait)
		defer cancel()
		stays, err := w.suspect.Stays(within, w.JS)
		if was := w.Stuck(); stays || err != nil && was != nil && was.Why == stuckPassed {
			return w.suspect.Subject
		}
		if err != nil {
			return ""
		}
	}
	w.suspect, _ = mulligan.PassedOver(ctx, w.JS, info)
	return ""
}

// conclude says when jobs begin to wait in vain and when that is over, and has
// mended what can be.
func (w *Watch) conclude(ctx context.Context, look sight) {
	why, was, now := look.why(), w.stuck.Load(), time.Now()
	log := w.Log.With().Str("stream", w.Stream).Logger()
	if why == "" {
		if was != nil {
			w.stuck.Store(nil)
			log.Info().Str("why", was.Why).Stringer("stuck", now.Sub(was.Since).Round(time.Second)).Msg("jobs no longer wait in vain")
		}
		return
	}
	found := Stuck{Stream: w.Stream, Why: why, Since: now.Add(-lookEvery)}
	found.Cause, found.Do = w.explain(look, why)
	fresh := was == nil || was.Why != why
	if was != nil {
		found.Since = was.Since
	}
	w.stuck.Store(&found)
	if fresh {
		log.Error().Str("why", why).Str("do", found.Do).Msg("stuck: " + found.Cause)
	}
	mendable := why == stuckMissing || why == stuckFault || why == stuckPassed
	if !mendable || !fresh && now.Sub(w.tried) < MendEvery {
		return
	}
	w.tried = now
	mended, err := w.mend(ctx, why)
	if mended {
		log.Warn().Str("why", why).Msg("the consumer was put right")
	}
	if err != nil && fresh {
		log.Error().Err(err).Str("why", why).Str("do", found.Do).Msg("this process cannot put the consumer right")
	}
}

// mend puts the consumer right, unless another process that sees the same is
// faster.
func (w *Watch) mend(ctx context.Context, why string) (mended bool, err error) {
	if err := pause.For(ctx, rand.N(mendSpread)); err != nil {
		return false, nil // it ends
	}
	var now sight
	if w.ask(ctx, &now); now.why() != why {
		return false, nil
	}
	return w.Mend(ctx)
}

// explain says a reason in words, and what to do.
func (w *Watch) explain(look sight, why string) (cause, do string) {
	name := "consumer " + w.Durable + " of " + w.Stream
	const provision = "nothing if a worker or scheduler puts it right; else run `mulligan provision --config FILE`"
	switch why {
	case stuckHandlers:
		return "every slot has a handler that goes on though its time is up", "restart this process, and have the handlers end with their context"
	case stuckMissing:
		return fmt.Sprintf("there is no %s: %v", name, look.missing), provision
	case stuckNoAnswer:
		return fmt.Sprintf("the server says nothing about %s: %v", name, look.silent), "see whether the NATS servers are up, and whether the stream has a leader, with `nats stream info " + w.Stream + "`"
	case stuckFault:
		return "the " + name + " is not as it should be: " + look.fault, provision
	case stuckPassed:
		return fmt.Sprintf("the %s has passed over jobs, such as %.120s", name, look.passed), provision
	case stuckPaused:
		return "the " + name + " is paused", "if it should go on, run `nats consumer resume " + w.Stream + " " + w.Durable + "`"
	case stuckRefused:
		return fmt.Sprintf("%d jobs wait, but no request brings any: %v", look.waiting, look.refused), "check that this process may ask, and see who else does, with `nats consumer info " + w.Stream + " " + w.Durable + "`"
	case stuckUndelivered:
		return fmt.Sprintf("%d jobs wait, this process asks, and the server gives none", look.waiting), "have another server lead it, with `nats consumer cluster step-down " + w.Stream + " " + w.Durable + "`; if it is alone, restart it"
	}
	return fmt.Sprintf("%d jobs wait, and this process does not ask for any", look.waiting), "restart this process, and report it with its log"
}
