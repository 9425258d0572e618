package scheduler

import (
	"context"
	"errors"
	"fmt"
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
// it had at first. It fails with [mulligan.ErrNotFound], [ErrQueued] or
// [ErrNotReplayable], and the letter stays. A replay that was interrupted may be
// repeated.
func (s *Scheduler) Replay(ctx context.Context, kind, id string) (Replayed, error) {
	l, err := s.Letter(ctx, kind, id)
	if err != nil {
		return Replayed{}, err
	}
	switch l.Reason {
	case mulligan.KeyConflict:
		return Replayed{}, fmt.Errorf("%w: the key of %s %.80q belongs to another payload; publish it under a new ID", ErrNotReplayable, kind, id)
	case mulligan.Malformed:
		return Replayed{}, fmt.Errorf("%w: %s %.80q is malformed; publish it anew", ErrNotReplayable, kind, id)
	}
	switch waits, err := s.spent(ctx, &l); {
	case err != nil:
		return Replayed{}, err
	case waits:
		return Replayed{}, fmt.Errorf("replay %s %.80q: %w", kind, id, ErrQueued)
	}
	done, reopening, err := s.reopen(ctx, &l)
	if err != nil {
		return Replayed{}, fmt.Errorf("replay %s %.80q: %w", kind, id, err)
	}
	var seq uint64
	if !done {
		if seq, err = s.publish(ctx, &l, reopening); err != nil {
			return Replayed{}, fmt.Errorf("replay %s %.80q: %w", kind, id, err)
		}
		s.Metrics.Replayed(l.Kind)
		s.Log.Info().Str("kind", l.Kind).Str("id", l.ID).Int("attempt", l.Attempts).Str("reason", string(l.Reason)).Stringer("delay", time.Duration(0)).Msg("replayed")
		s.tell(&l, mulligan.EventReplayed)
	}
	// By its sequence: should the job be dead again by now, its new letter stays.
	if err := s.discard(ctx, "replay.delete", l.Seq); err != nil {
		return Replayed{}, fmt.Errorf("replay %s %.80q: published, but its letter stays: %w", kind, id, err)
	}
	return Replayed{Seq: seq, Done: done}, nil
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

// reopen lets the key run again, its history kept. It reports whether the key
// is done already, and names the reopening. Repeated after an interruption it does the same, unless the
// job has begun meanwhile: then there is nothing to reopen.
func (s *Scheduler) reopen(ctx context.Context, l *mulligan.Letter) (done bool, reopening string, err error) {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	conflict, fresh := false, nuid.Next()
	err = s.ledger.Update(ctx, "replay.reopen", l.RecordKey(), func(r *mulligan.Record) (store bool) {
		done = r.State == mulligan.Done && r.Payload == l.Fingerprint()
		conflict = r.State != "" && r.Payload != l.Fingerprint()
		reopening = r.Replay
		if done || conflict || r.State == mulligan.Live || r.State == mulligan.Parked {
			return false
		}
		*r = mulligan.Record{State: mulligan.Live, Payload: l.Fingerprint(), History: r.History, Replay: fresh}
		reopening = fresh
		if r.History == nil {
			r.History = l.History
		}
		return true
	})
	if conflict {
		err = fmt.Errorf("%w: the key belongs to another payload by now; publish it under a new ID", ErrNotReplayable)
	}
	return done, reopening, err
}

func (s *Scheduler) publish(ctx context.Context, l *mulligan.Letter, reopening string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	address := mulligan.Address(s.Topology.DeadStream(), l.Seq)
	msg := l.Replayed(mulligan.Subject(s.Topology.JobsRoot(), l.Kind, l.Token), address, time.Now())
	ack, err := call.Do(ctx, "replay.publish", func() (*jetstream.PubAck, error) {
		return s.js.PublishMsg(ctx, msg, jetstream.WithMsgID("replay:"+address+":"+reopening))
	})
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && strings.Contains(api.Description, "per subject"):
		return 0, ErrQueued
	case err != nil:
		return 0, fmt.Errorf("publish: %w", err)
	}
	return ack.Sequence, nil
}
