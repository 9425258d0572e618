package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
)

var (
	// ErrQueued is returned by [Scheduler.Replay] for a key that is queued
	// already. The letter stays.
	ErrQueued = errors.New("scheduler: the key is queued already; try again later")
	// ErrNotReplayable is returned for a letter that cannot run under its key.
	ErrNotReplayable = errors.New("scheduler: not replayable")
)

// Replayed says what a replay did.
type Replayed struct {
	// Seq is where the job was stored again.
	Seq uint64
	// Done: the key had succeeded already. Only the letter went, the result
	// stands.
	Done bool
}

// Replay publishes the job of a dead letter again, with its key and payload bit
// for bit, its attempts counted from one, and as much time to its deadline as
// it had at first. It fails with [mulligan.ErrNotFound], [ErrQueued],
// [ErrNotReplayable], or [mulligan.ErrInDoubt] if running the job again may repeat
// an effect; then a person who knows resolves it. The letter stays. A replay
// that was interrupted may be repeated.
func (s *Scheduler) Replay(ctx context.Context, kind, id string) (Replayed, error) {
	return s.sendBack(ctx, kind, id, reopening{})
}

// sendBack publishes a dead job again.
func (s *Scheduler) sendBack(ctx context.Context, kind, id string, r reopening) (Replayed, error) {
	l, err := s.runnable(ctx, kind, id)
	if err != nil {
		return Replayed{}, err
	}
	r.letter = &l
	if r.kind, err = call.Do(ctx, "replay.kind", func() (mulligan.Kind, error) { return s.declared(ctx, kind) }); err != nil {
		return Replayed{}, err
	}
	if err := s.reopen(ctx, &r); err != nil {
		return Replayed{}, fmt.Errorf("replay %s %.80q: %w", kind, id, err)
	}
	var seq uint64
	if !r.done {
		if seq, err = s.publish(ctx, &r); err != nil {
			return Replayed{}, fmt.Errorf("replay %s %.80q: %w", kind, id, err)
		}
		s.Metrics.Replayed(l.Kind)
		s.Log.Info().Str("kind", l.Kind).Str("id", l.ID).Int("attempt", l.Attempts).Str("reason", string(l.Reason)).Stringer("delay", time.Duration(0)).Msg("replayed")
		s.tell(&l, mulligan.EventReplayed)
	}
	if r.done { // whatever letter of it there is by now
		err = s.takeBack(ctx, &l)
	} else { // by its sequence: should the job be dead again by now, its new letter stays
		err = s.discard(ctx, "replay.delete", l.Seq)
	}
	if err != nil {
		return Replayed{}, fmt.Errorf("replay %s %.80q: published, but its letter stays: %w", kind, id, err)
	}
	return Replayed{Seq: seq, Done: r.done}, nil
}

// runnable returns the letter of a key, if the key is its own.
func (s *Scheduler) runnable(ctx context.Context, kind, id string) (mulligan.Letter, error) {
	l, err := call.Do(ctx, "replay.letter", func() (mulligan.Letter, error) { return s.Letter(ctx, kind, id) })
	if err != nil {
		return l, err
	}
	switch l.Reason {
	case mulligan.KeyConflict:
		return l, fmt.Errorf("%w: the key of %s %.80q belongs to another payload; publish it under a new ID", ErrNotReplayable, kind, id)
	case mulligan.Malformed:
		return l, fmt.Errorf("%w: %s %.80q is malformed; publish it anew", ErrNotReplayable, kind, id)
	}
	switch waits, err := call.Do(ctx, "replay.spent", func() (bool, error) { return s.spent(ctx, &l) }); {
	case err != nil:
		return l, err
	case waits:
		return l, fmt.Errorf("replay %s %.80q: %w", kind, id, ErrQueued)
	}
	return l, nil
}

// spent reports whether the key is spent once more and waits to be buried: its
// new letter will replace this one.
func (s *Scheduler) spent(ctx context.Context, l *mulligan.Letter) (bool, error) {
	retries, err := s.js.Stream(ctx, s.Topology.RetriesStream())
	if err == nil {
		_, err = retries.GetLastMsgForSubject(ctx, mulligan.Subject(s.Topology.SpentRoot(), l.Kind, l.Token))
	}
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%w: look for a spent job: %w", mulligan.ErrUnavailable, err)
	}
	return true, nil
}

// reopening lets a dead key run again.
type reopening struct {
	letter *mulligan.Letter
	kind   mulligan.Kind // as it is declared
	// resolved: a person says that the effect did not happen, apart from that of
	// a step, whose result is given.
	resolved   bool
	step       string
	stepResult *mulligan.Result

	done   bool             // the key is done already
	name   string           // so that the next one of the same letter is not taken for it
	before *mulligan.Record // what this one replaced; nil if nothing
}

// reopen lets the key run again, its history and steps kept. Repeated after an
// interruption it does the same, unless the job has begun meanwhile: then there
// is nothing to reopen.
func (s *Scheduler) reopen(ctx context.Context, o *reopening) error {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	fresh, update := nuid.Next(), s.ledger.Update
	if o.resolved {
		update = s.ledger.Replace
	}
	var refused error
	err := update(ctx, "replay.reopen", o.letter.RecordKey(), func(r *mulligan.Record) (store bool) {
		refused, store = o.apply(r, fresh, time.Now())
		return store
	})
	if err == nil {
		err = refused
	}
	return err
}

// apply reopens the record, or says why not.
func (o *reopening) apply(r *mulligan.Record, fresh string, now time.Time) (refused error, store bool) {
	l := o.letter
	o.done, o.name, o.before = r.State == mulligan.Done && r.Payload == l.Fingerprint(), r.Replay, nil
	switch {
	case o.done || r.Replay == fresh: // stored before; the answer was lost
		return nil, false
	case r.State != "" && r.Payload != l.Fingerprint():
		return fmt.Errorf("%w: the key belongs to another payload by now; publish it under a new ID", ErrNotReplayable), false
	case r.State == mulligan.Live || r.State == mulligan.Parked:
		if o.step != "" && (r.Step(o.step) == nil || r.Step(o.step).Result == nil) {
			return fmt.Errorf("%w: the job was sent back already, without a word about step %.60q", ErrNotReplayable, o.step), false
		}
		return nil, true // reopened before, and interrupted; stored as it is, since it may be what there was before the key ended
	case o.step != "" && (r.Step(o.step) == nil || !r.Step(o.step).Open()):
		return fmt.Errorf("%w: step %.60q was not begun, or is done", ErrNotReplayable, o.step), false
	case !o.resolved:
		if why := doubt(r, l, o.kind, now); why != "" {
			return fmt.Errorf("%w: %s; resolve it with --done or --not-done", mulligan.ErrInDoubt, why), false
		}
	}
	before := *r
	if o.step != "" {
		r.Steps = slices.Clone(r.Steps)
		r.Step(o.step).Result = o.stepResult
		if others := r.OpenSteps(); len(others) > 0 {
			return fmt.Errorf("%w: step %s is recorded as done; its step %s began too, resolve it next", mulligan.ErrInDoubt, o.step, strings.Join(others, " and its step ")), true
		}
	}
	o.name, o.before = fresh, &before
	*r = mulligan.Record{State: mulligan.Live, Effect: r.Effect, Payload: l.Fingerprint(), Steps: ended(r.Steps), History: r.History, Replay: fresh}
	if !o.resolved {
		r.FirstCall = firstDoubtful(&before, l)
	}
	if r.History == nil {
		r.History = l.History
	}
	entry := mulligan.Attempt{Number: before.Attempts, Run: fresh, At: now, Verb: mulligan.Replay, Reason: l.Reason, ErrorType: l.ErrorType, Error: l.Error}
	if o.resolved {
		entry.Verb = mulligan.Resolve
	}
	r.Note(entry)
	return nil, true
}

// ended returns the steps whose result is known: a replay repeats the others.
func ended(steps []mulligan.StepRecord) (known []mulligan.StepRecord) {
	for _, s := range steps {
		if s.Result != nil {
			known = append(known, s)
		}
	}
	return known
}

func (s *Scheduler) publish(ctx context.Context, o *reopening) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	l := o.letter
	address := mulligan.Address(s.Topology.DeadStream(), l.Seq)
	msg := l.Replayed(mulligan.Subject(s.Topology.JobsRoot(), l.Kind, l.Token), address, time.Now())
	ack, err := call.Do(ctx, "replay.publish", func() (*jetstream.PubAck, error) {
		return s.js.PublishMsg(ctx, msg, jetstream.WithMsgID("replay:"+address+":"+o.name))
	})
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		if err != nil {
			return 0, fmt.Errorf("publish: %w", err)
		}
		return ack.Sequence, nil
	}
	// The server says that it did not store it.
	if err := s.close(ctx, o); err != nil {
		return 0, fmt.Errorf("publish: %w (and its record stays open: %w)", api, err)
	}
	if strings.Contains(api.Description, "per subject") {
		return 0, ErrQueued
	}
	return 0, fmt.Errorf("publish: %w", err)
}

// close takes a reopening back that came to nothing, unless the key has begun to
// live meanwhile.
func (s *Scheduler) close(ctx context.Context, o *reopening) error {
	if o.before == nil {
		return nil
	}
	return s.ledger.Update(ctx, "replay.close", o.letter.RecordKey(), func(r *mulligan.Record) (store bool) {
		if r.Replay != o.name || r.State != mulligan.Live || r.Attempts > 0 || r.Starts > 0 || r.Move != nil {
			return false
		}
		*r = *o.before
		return true
	})
}
