package call

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/pause"
)

// Unanswered reports whether a call failed because nobody answered, or nobody can
// just now: a server that starts, a cluster without a leader. A server that has no
// JetStream has answered.
func Unanswered(err error) bool {
	const unavailable = 503
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return false
	}
	api, refused := errors.AsType[*jetstream.APIError](err)
	older, refusedWatch := errors.AsType[*nats.APIError](err) // what a watch of a bucket ends with
	return refused && api.Code == unavailable || refusedWatch && older.Code == unavailable || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrDisconnected)
}

// Connected says why nothing can be asked over a connection now, or ever if it is
// closed. Of one that was never up it is not known what its server allows.
func Connected(c *nats.Conn) error {
	switch {
	case c.IsClosed():
		return nats.ErrConnectionClosed
	case !c.IsConnected():
		return nats.ErrDisconnected
	}
	return nil
}

// Patiently makes do's calls, again and again while they are [Unanswered] and until
// ctx ends, and tells say of each time that it is to be tried again. For a process
// that starts while its servers do, or are away: who starts it again if it ends waits
// longer each time, and goes on waiting when they are back.
//
// To whoever lacks a right a server is silent, too, but for a word on the connection:
// refused is the last of these, if there is one, and ends the waiting after a minute.
func Patiently(ctx context.Context, do func() error, refused func() error, say func(err error)) error {
	began := time.Now()
	for wait := time.Second; ; wait = min(2*wait, longestWait) {
		err := do()
		if !Unanswered(err) || ctx.Err() != nil {
			return err
		}
		if why := refused(); errors.Is(why, nats.ErrPermissionViolation) && time.Since(began) > refusedWait {
			return fmt.Errorf("%w; it may be for want of rights: %w", err, why)
		}
		say(err)
		if pause.For(ctx, wait) != nil {
			return err
		}
	}
}

const (
	longestWait = 10 * time.Second // between two tries
	refusedWait = time.Minute
)
