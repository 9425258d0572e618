package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nuid"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/dedupe"
)

// ResolveDone records the word of a person that the effect of a dead job did
// happen, with its result if it is known, and removes the letter. A key that is
// done already keeps its result. It fails with [mulligan.ErrNotFound], [ErrQueued],
// [ErrNotReplayable] or [mulligan.ErrTooLarge], and the letter stays.
func (s *Scheduler) ResolveDone(ctx context.Context, kind, id string, result []byte) error {
	l, err := s.runnable(ctx, kind, id)
	if err != nil {
		return err
	}
	if len(result) > mulligan.DefaultMaxResult {
		return fmt.Errorf("resolve %s %.80q: %w: a result of %d bytes, the limit is %d", kind, id, mulligan.ErrTooLarge, len(result), mulligan.DefaultMaxResult)
	}
	if err := s.settleDone(ctx, &l, mulligan.NewResult(result, time.Now())); err != nil {
		return fmt.Errorf("resolve %s %.80q: %w", kind, id, err)
	}
	s.Log.Info().Str("kind", l.Kind).Str("id", l.ID).Int("attempt", l.Attempts).Str("reason", string(l.Reason)).Stringer("delay", time.Duration(0)).Msg("resolved: done")
	if err := s.takeBack(ctx, &l); err != nil {
		return fmt.Errorf("resolve %s %.80q: recorded as done, but its letter stays: %w", kind, id, err)
	}
	return nil
}

// ResolveNotDone sends a dead job back as [Scheduler.Replay] does, on the word of
// a person that its effect did not happen. Of its steps those whose result is
// known are not repeated.
func (s *Scheduler) ResolveNotDone(ctx context.Context, kind, id string) (Replayed, error) {
	return s.sendBack(ctx, kind, id, reopening{resolved: true})
}

// A StepDone is the word of a person that the effect of a step did happen.
type StepDone struct {
	Name string
	// Result is what [mulligan.Step] returns for it from now on, as JSON; the null
	// of JSON if it is empty.
	Result []byte
}

// ResolveStepDone sends a dead job back whose step began and has no known end, on
// the word of a person that the step's effect did happen. The steps that are done
// are not repeated, those behind it run. While another step has no known end it
// records this one and fails with [mulligan.ErrInDoubt]: the job stays dead until
// that one is resolved too.
func (s *Scheduler) ResolveStepDone(ctx context.Context, kind, id string, step StepDone) (Replayed, error) {
	if len(step.Result) == 0 {
		step.Result = []byte("null")
	}
	if !json.Valid(step.Result) {
		return Replayed{}, fmt.Errorf("resolve step %.60q of %s %.80q: its result is not JSON", step.Name, kind, id)
	}
	if len(step.Result) > mulligan.DefaultMaxResult {
		return Replayed{}, fmt.Errorf("resolve step %.60q of %s %.80q: %w: a result of %d bytes, the limit is %d", step.Name, kind, id, mulligan.ErrTooLarge, len(step.Result), mulligan.DefaultMaxResult)
	}
	result := mulligan.NewResult(step.Result, time.Now())
	return s.sendBack(ctx, kind, id, reopening{resolved: true, step: step.Name, stepResult: result})
}

// settleDone writes done over every other end. A run that began before and is
// not over yet finds it there: the first result stands.
func (s *Scheduler) settleDone(ctx context.Context, l *mulligan.Letter, result *mulligan.Result) error {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	run, conflict := nuid.Next(), false
	err := s.ledger.Replace(ctx, "resolve.done", l.RecordKey(), func(r *mulligan.Record) (store bool) {
		conflict = r.State != "" && r.Payload != l.Fingerprint()
		if conflict || r.State == mulligan.Done {
			return false
		}
		if r.History == nil {
			r.History = l.History
		}
		r.Note(mulligan.Attempt{Number: max(r.Attempts, l.Attempts), Run: run, At: result.At, Verb: mulligan.Resolve, Reason: l.Reason, ErrorType: l.ErrorType, Error: l.Error})
		r.State, r.Payload, r.Attempts, r.Result = mulligan.Done, l.Fingerprint(), max(r.Attempts, l.Attempts), result
		r.Reason, r.Starts, r.Move, r.Changed = "", 0, nil, nil
		return true
	})
	if conflict {
		return fmt.Errorf("%w: the key belongs to another payload by now", ErrNotReplayable)
	}
	return err
}

// A Finding is what is known of a dead job besides its letter.
type Finding struct {
	// Record is nil if the key has none that can be read, or another payload's.
	Record *mulligan.Record
	// Doubt says why running the job again may repeat its effect, so that a
	// replay fails with [mulligan.ErrInDoubt]; empty if it may not.
	Doubt string
}

// Find looks up what is known of the job of a letter.
func (s *Scheduler) Find(ctx context.Context, l *mulligan.Letter) (Finding, error) {
	if l.Reason == mulligan.KeyConflict || l.Reason == mulligan.Malformed {
		return Finding{}, nil // its key is another job's, or none
	}
	if err := s.connect(ctx); err != nil {
		return Finding{}, err
	}
	looking, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	r, err := s.ledger.Load(looking, l.RecordKey())
	if errors.Is(err, dedupe.ErrUnreadable) {
		return Finding{Doubt: "the record of its key cannot be read"}, nil
	}
	if err != nil {
		return Finding{}, fmt.Errorf("%w: look for %s %.80q: %w", mulligan.ErrUnavailable, l.Kind, l.ID, err)
	}
	k, err := s.declared(ctx, l.Kind)
	if err != nil {
		return Finding{}, err
	}
	switch {
	case r == nil || r.Payload != l.Fingerprint():
		return Finding{Doubt: doubt(new(mulligan.Record), l, k, time.Now())}, nil
	case r.State == mulligan.Done || r.State == mulligan.Live || r.State == mulligan.Parked:
		return Finding{Record: r}, nil // it is done, or runs again already
	}
	return Finding{Record: r, Doubt: doubt(r, l, k, time.Now())}, nil
}

// doubt says why running the job of a letter again may repeat its effect, or
// nothing. k is what its kind is declared as.
func doubt(r *mulligan.Record, l *mulligan.Letter, k mulligan.Kind, now time.Time) string {
	effect := r.Effect
	if effect == "" {
		effect = k.Effect
	}
	start, first := r.Open(), firstDoubtful(r, l)
	stepped := r.Start != nil && r.Start.Stepped
	switch steps := r.OpenSteps(); {
	case len(steps) > 0:
		return fmt.Sprintf("its step %s began and the end is not known", strings.Join(steps, " and its step "))
	case l.Reason == mulligan.InDoubt || r.Reason == mulligan.InDoubt:
		return "nobody knows whether its effect happened"
	case effect == mulligan.Once && start != nil && !stepped:
		return fmt.Sprintf("an attempt began at %s and its end is not known", start.At.Format(time.RFC3339))
	case effect == mulligan.Once && !first.IsZero() && !stepped:
		return fmt.Sprintf("an attempt at %s failed, and nothing says that its effect did not happen", first.Format(time.RFC3339))
	case effect == mulligan.Keyed && !first.IsZero() && now.Sub(first) > k.KeyTTL:
		return fmt.Sprintf("its key went to the downstream first at %s, and %v later it may be forgotten there", first.Format(time.RFC3339), k.KeyTTL)
	}
	return ""
}

// firstDoubtful is when the first attempt began after which the effect may have
// happened, and of which no person has said that it did not; zero if there is
// none.
func firstDoubtful(r *mulligan.Record, l *mulligan.Letter) (first time.Time) {
	history := r.History
	if history == nil {
		history = l.History
	}
	for _, a := range history {
		switch called := a.Verb != mulligan.Replay && a.ErrorType != "" && !a.NotStarted && a.Reason != mulligan.Snoozed; {
		case a.Verb == mulligan.Resolve:
			first = time.Time{}
		case called && first.IsZero():
			first = a.At
		}
	}
	if !r.FirstCall.IsZero() { // the history forgets
		return r.FirstCall
	}
	if start := r.Open(); start != nil && first.IsZero() {
		return start.At
	}
	return first
}

// declared is what a kind is declared as. Of one that nobody declares any more
// its effect is not known.
func (s *Scheduler) declared(ctx context.Context, kind string) (mulligan.Kind, error) {
	k, err := s.Topology.Kind(ctx, s.js, kind)
	switch {
	case errors.Is(err, mulligan.ErrUnknownKind):
		err = nil
	case err != nil:
		return k, fmt.Errorf("%w: %w", mulligan.ErrUnavailable, err)
	}
	if k.KeyTTL == 0 {
		k.KeyTTL = mulligan.DefaultKeyTTL
	}
	return k, err
}
