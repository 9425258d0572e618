package consumer

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// carryOut does what the verdict says. Every move stores at the destination
// before it acknowledges the origin: a crash between the two repeats the move,
// which is recognised by its id; the other order loses the job.
func (w *Worker) carryOut(ctx context.Context, d *delivery, v verdict) {
	switch v.Verb {
	case ack:
		if err := call.Err(ctx, "ack", func() error { return d.msg.Ack() }); err != nil {
			w.unmoved(d, v, err)
		}
	case nak:
		w.nak(ctx, d, v)
	case park:
		w.move(ctx, d, v, w.parked(d, "park", v.Due))
	case deferred:
		s := w.parked(d, "park", v.Due) // the id of a park: who finishes it cannot tell them apart
		s.move = "defer"
		w.move(ctx, d, v, s)
	case wait:
		w.move(ctx, d, v, w.parked(d, "wait", v.Due))
	case drop:
	case spend:
		w.move(ctx, d, v, w.spent(d, v, "spend"))
	case settle:
		// Another id: the message may have been spent before, as in doubt.
		w.move(ctx, d, v, w.spent(d, v, "settle"))
	}
}

// nak has the server redeliver d, to whichever worker, when that is due. A retry
// that has a place stays here until then: the server has one timer for all delayed
// naks of a consumer, and each that comes sets it back, so that many are seconds late.
func (w *Worker) nak(ctx context.Context, d *delivery, v verdict) {
	send := func(msg *nats.Msg, delay time.Duration) {
		if err := call.Err(ctx, "nak", func() error { return nakFor(msg, delay) }); err != nil {
			w.unmoved(d, v, err)
		}
	}
	delay := w.clock.Until(v.Due)
	if !d.placed || delay <= 0 {
		send(w.hand.release(d), delay)
		return
	}
	d.seen = dedupe.Sight{} // of no use any more
	w.hand.rest(d, time.Now().Add(delay), func(msg *nats.Msg) { send(msg, 0) })
}

// nakFor has the server redeliver a message after a delay; none is at once.
func nakFor(msg *nats.Msg, delay time.Duration) error {
	if delay <= 0 {
		return msg.Nak()
	}
	return msg.NakWithDelay(delay)
}

// successor is a message to store before its origin is acknowledged.
type successor struct {
	move call.Move
	msg  *nats.Msg
	opts []jetstream.PublishOpt
}

// parked is the schedule that brings the message back when it is due: a retry to
// where a token is needed, all else to where jobs are pulled without. Its
// subject ends with the origin's address, since publishing on a subject where a
// schedule waits would replace it.
func (w *Worker) parked(d *delivery, move call.Move, due time.Time) successor {
	t := w.Topology
	origin, back := d.address.token(), t.DeferredRoot()
	if d.retry {
		back = t.DueRoot()
	}
	msg := d.env.Parked(mulligan.Subject(t.AtRoot(), d.env.Kind, d.env.Token)+"."+origin, due)
	// Written here, since the client's option cuts a time to the second before.
	msg.Header.Set(jetstream.ScheduleHeader, "@at "+due.UTC().Format(time.RFC3339Nano))
	msg.Header.Set(jetstream.ScheduleTargetHeader, mulligan.Subject(back, d.env.Kind, d.env.Token))
	return successor{move, msg, []jetstream.PublishOpt{jetstream.WithMsgID(d.moveID(move))}}
}

// moveID names the move, what is moved, and in which of its key's lives: a
// message may outlive a replay, and be moved again.
func (d *delivery) moveID(move call.Move) string {
	id := string(move) + ":" + mulligan.MoveID(d.address.String(), d.stored)
	if d.life != "" {
		id += ":" + d.life
	}
	return id
}

// spent is the message that hands the job to the schedulers.
func (w *Worker) spent(d *delivery, v verdict, move call.Move) successor {
	subject := mulligan.Subject(w.Topology.SpentRoot(), d.env.Kind, mulligan.SafeToken(d.env.Token))
	m := mulligan.Move{Verb: mulligan.Spend, Reason: v.Reason, ErrorType: v.ErrorType, Error: v.Error}
	return successor{move, d.env.SpentMessage(subject, m), []jetstream.PublishOpt{jetstream.WithMsgID(d.moveID(move))}}
}

// move stores the successor, then acknowledges the origin for certain. While
// the server is away it tries again for a while; after that the message comes
// back by itself, and whoever gets it finishes the move.
func (w *Worker) move(ctx context.Context, d *delivery, v verdict, s successor) {
	ctx = context.WithoutCancel(ctx) // what is decided is carried out, also at shutdown
	err := stubborn(ctx, func(ctx context.Context) error {
		return call.Err(ctx, s.move.Publish(), func() error {
			_, err := w.js.PublishMsg(ctx, s.msg, s.opts...)
			return err
		})
	})
	if err == nil {
		err = stubborn(ctx, func(ctx context.Context) error {
			return call.Err(ctx, s.move.Ack(), func() error { return d.msg.AckSync(nats.Context(ctx)) })
		})
	}
	if err != nil {
		w.unmoved(d, v, err)
	}
}

const (
	moveFor    = 20 * time.Second // how long one step of a move is tried, below the grace period
	answerWait = 5 * time.Second  // for one answer
)

// stubborn repeats do until it works or the time for a move is over.
func stubborn(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, moveFor)
	defer cancel()
	for try := 1; ; try++ {
		err := within(ctx, answerWait, do)
		if err == nil || pause.For(ctx, time.Duration(try)*100*time.Millisecond) != nil {
			return err
		}
	}
}

func within(ctx context.Context, d time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return do(ctx)
}

func (w *Worker) unmoved(d *delivery, v verdict, err error) {
	d.line(w.Log.Error(), string(v.Reason), 0).Err(err).Str("verb", string(v.Verb)).
		Msg("move interrupted; the message comes back and the move is finished then")
}

// report says what was decided about a job: one log line, one count, one event.
func (w *Worker) report(d *delivery, attempt int, v verdict) {
	kind := d.env.Kind
	reason, delay := string(v.Reason), time.Duration(0)
	if reason == "" {
		reason = v.ErrorType
	}
	if !v.Due.IsZero() && v.Verb != spend {
		delay = max(w.clock.Until(v.Due), 0)
	}
	what := ""
	switch v.Verb {
	case nak, park:
		if v.Reason == mulligan.InProgress {
			return // its attempt is over, and it only waits to see what becomes of the other
		}
		what = mulligan.EventRetry
		w.Metrics.Retry(kind, v.ErrorType, v.Verb)
	case deferred, wait:
		what = mulligan.EventDeferred
		w.Metrics.Deferred(kind, v.Reason)
	case spend:
		what = mulligan.EventSpent
		w.Metrics.Spent(kind, v.Reason)
	default:
		return
	}
	d.tries = attempt
	d.line(w.Log.Info(), reason, delay).Str("verb", string(v.Verb)).Str("error", v.Error).Msg(what)
	w.tell(d, mulligan.Event{Event: what, Attempt: attempt, Verb: v.Verb, Reason: v.Reason, Delay: delay,
		ErrorType: v.ErrorType, Error: v.Error})
}

// line begins a log line about the job: each has these fields.
func (d *delivery) line(e *zerolog.Event, reason string, delay time.Duration) *zerolog.Event {
	if d.env.User != "" {
		e.Str("user", d.env.User)
	}
	if d.env.Task != "" {
		e.Str("task", d.env.Task)
	}
	return e.Str("kind", d.env.Kind).Str("id", d.env.ID).Int("attempt", d.tries).Str("reason", reason).Stringer("delay", delay.Round(time.Millisecond))
}

// tell sends a copy of what happened to whoever observes. It may be lost.
func (w *Worker) tell(d *delivery, e mulligan.Event) {
	e.At, e.Kind, e.ID = w.clock.Now(), d.env.Kind, d.env.ID
	b, err := json.Marshal(e)
	if err != nil {
		return
	}
	_ = w.Conn.Publish(mulligan.Subject(w.Topology.EventsRoot(), d.env.Kind, mulligan.SafeToken(d.env.Token)), b) // a copy only
}
