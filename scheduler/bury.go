package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/internal/call"
)

// bury moves one spent job to the dead letters. What cannot be finished comes
// back by itself: with the dead letters full, spent jobs wait where they are.
func (s *Scheduler) bury(ctx context.Context, msg *nats.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		s.Log.Error().Err(err).Str("subject", msg.Subject).Msg("a spent message without metadata stays")
		return
	}
	kind, token := mulligan.SplitSubject(s.Topology.SpentRoot(), msg.Subject)
	e, move := mulligan.OpenSpent(kind, token, msg)
	err = s.inter(ctx, e, move, mulligan.MoveID(mulligan.Address(meta.Stream, meta.Sequence.Stream), meta.Timestamp))
	if err == nil {
		err = s.answer(ctx, "bury.ack", func(ctx context.Context) error { return msg.AckSync(nats.Context(ctx)) })
	}
	if err != nil {
		s.Metrics.Unburied(e.Kind)
		delay := buryAgain * time.Duration(min(meta.NumDelivered, 12))
		s.Log.Error().Err(err).Str("kind", e.Kind).Str("id", e.ID).Int("attempt", 0).Str("reason", string(move.Reason)).Stringer("delay", delay).
			Msg("burial interrupted; it is tried again")
		_ = msg.NakWithDelay(delay) // lost, it comes back after AckWait
	}
}

// inter writes the letter and then marks the record dead: a crash between the
// two repeats the burial, which replaces the letter with the same one.
func (s *Scheduler) inter(ctx context.Context, e mulligan.Envelope, move mulligan.Move, id string) error {
	l := mulligan.Letter{Envelope: e, Reason: move.Reason, ErrorType: move.ErrorType, Error: move.Error, BuriedAt: s.clock.Now()}
	if move.Reason == mulligan.Malformed {
		return s.post(ctx, &l, id)
	}
	var seen dedupe.Sight
	r, err := s.recall(ctx, &l, &seen)
	if errors.Is(err, dedupe.ErrUnreadable) {
		return s.post(ctx, &l, id) // what the spent message says is all there is
	}
	if err != nil {
		return err
	}
	if r.Payload == e.Fingerprint() {
		switch r.State {
		case mulligan.Done: // it succeeded after all, maybe after it was buried
			return s.takeBack(ctx, &l)
		case mulligan.Dead: // another message of the key was buried before
			if had, err := s.own(ctx, &l); had != nil || err != nil {
				return err
			}
		}
	}
	if move.Reason != mulligan.KeyConflict {
		l.Attempts, l.History = r.Attempts, r.History
	}
	if err := s.post(ctx, &l, id); err != nil {
		return err
	}
	if move.Reason == mulligan.KeyConflict {
		return nil // the record is another payload's
	}
	return s.markDead(ctx, &l, &seen)
}

// takeBack deletes the letter of a key that is done, should there be one.
func (s *Scheduler) takeBack(ctx context.Context, l *mulligan.Letter) error {
	had, err := s.own(ctx, l)
	if had == nil || err != nil {
		return err
	}
	return s.discard(ctx, "bury.discard", had.Seq)
}

// own returns the letter of the key with this payload; nil if there is none.
func (s *Scheduler) own(ctx context.Context, l *mulligan.Letter) (had *mulligan.Letter, err error) {
	err = s.answer(ctx, "bury.own", func(ctx context.Context) error {
		m, err := s.dead.GetLastMsgForSubject(ctx, s.subject(l))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look for the letter: %w", err)
		}
		if found, err := mulligan.OpenLetter(&nats.Msg{Header: m.Header, Data: m.Data}, m.Sequence); err == nil && found.Fingerprint() == l.Fingerprint() {
			had = &found
		}
		return nil
	})
	return had, err
}

// recall returns the record of the key, without a state if there is none. It is
// stored again as it is: what was only read may be what a server knew that leads no
// more, from before the message was spent.
func (s *Scheduler) recall(ctx context.Context, l *mulligan.Letter, seen *dedupe.Sight) (rec *mulligan.Record, err error) {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	err = s.ledger.UpdateSeen(ctx, "bury.look", l.RecordKey(), seen, func(r *mulligan.Record) (store bool) {
		rec = r
		done := r.State == mulligan.Done && r.Payload == l.Fingerprint() // which no one undoes
		return !done && l.Reason != mulligan.KeyConflict
	})
	return rec, err
}

// subject of a letter. A key conflict and a malformed message have their own,
// beside that of the key's: neither may replace the letter of a real job.
func (s *Scheduler) subject(l *mulligan.Letter) string {
	subject := mulligan.Subject(s.Topology.DeadRoot(), l.Kind, mulligan.SafeToken(l.Token))
	if l.Reason == mulligan.KeyConflict || l.Reason == mulligan.Malformed {
		subject += ".~" + string(l.Fingerprint())
	}
	return subject
}

func (s *Scheduler) post(ctx context.Context, l *mulligan.Letter, id string) error {
	return s.answer(ctx, "bury.letter", func(ctx context.Context) error {
		ack, err := s.js.PublishMsg(ctx, l.Message(s.subject(l)), jetstream.WithMsgID("bury:"+id))
		if err != nil {
			return fmt.Errorf("write the letter: %w", err)
		}
		if l.Seq = ack.Sequence; ack.Duplicate {
			return nil
		}
		s.Metrics.Dead(l.Kind, l.Reason)
		s.Log.Warn().Str("kind", l.Kind).Str("id", l.ID).Int("attempt", l.Attempts).Str("reason", string(l.Reason)).
			Stringer("delay", time.Duration(0)).Str("error_type", l.ErrorType).Str("error", l.Error).Msg("dead")
		s.tell(l, mulligan.EventDead)
		return nil
	})
}

// markDead marks the record dead if it still says spent. If the job is done by
// now its letter is taken back.
func (s *Scheduler) markDead(ctx context.Context, l *mulligan.Letter, seen *dedupe.Sight) error {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	done := false
	err := s.ledger.UpdateSeen(ctx, "bury.mark", l.RecordKey(), seen, func(r *mulligan.Record) (store bool) {
		own := r.Payload == l.Fingerprint()
		if done = own && r.State == mulligan.Done; own && r.State == mulligan.Spent {
			r.State = mulligan.Dead
		}
		return !done // else it is stored as it is, see recall
	})
	if err != nil || !done {
		return err
	}
	return s.discard(ctx, "bury.discard", l.Seq)
}

// discard deletes a letter by its sequence; one that is gone is as wanted,
// since a newer letter of the key may have replaced it.
func (s *Scheduler) discard(ctx context.Context, step call.Step, seq uint64) error {
	return s.answer(ctx, step, func(ctx context.Context) error {
		err := s.dead.DeleteMsg(ctx, seq)
		if err == nil {
			return nil
		}
		if _, gone := s.dead.GetMsg(ctx, seq); errors.Is(gone, jetstream.ErrMsgNotFound) {
			return nil
		}
		return fmt.Errorf("delete letter %d: %w", seq, err)
	})
}

// answer makes one call and waits for its answer, but not for ever.
func (s *Scheduler) answer(ctx context.Context, step call.Step, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	return call.Err(ctx, step, func() error { return do(ctx) })
}
