package mulligan

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A Status is where a job is now.
type Status struct {
	Kind, ID string
	// State is queued, running, waiting, spent, dead, done or unknown. Unknown
	// is a job that was never published, or a pure one that succeeded at its
	// first attempt: of that nothing is kept.
	State  string
	Record *Record // nil if the key has none
}

// The states of a [Status].
const (
	StatusQueued  = "queued"  // not yet handed to a worker
	StatusRunning = "running" // in a worker's hands
	StatusWaiting = "waiting" // for its next attempt
	StatusSpent   = "spent"
	StatusDead    = "dead"
	StatusDone    = "done"
	StatusUnknown = "unknown"
)

// Status looks for a job in the ledger and the streams. The kind need not be
// among the publisher's.
func (p *Publisher) Status(ctx context.Context, kind, id string) (Status, error) {
	st := Status{Kind: kind, ID: id, State: StatusUnknown}
	if err := ValidKindName(kind); err != nil {
		return st, err
	}
	if err := checkID(id); err != nil {
		return st, err
	}
	if err := p.connect(ctx); err != nil {
		return st, err
	}
	for range 2 { // a job that ended while it was looked for has a record by then
		var err error
		if st.Record, err = p.record(ctx, kind, Token(id)); err != nil {
			return st, err
		}
		if r := st.Record; r != nil && r.Ended() {
			st.State = string(r.State)
			return st, nil
		}
		if st.State, err = p.locate(ctx, kind, Token(id), st.Record); err != nil || st.State != StatusUnknown {
			return st, err
		}
	}
	return st, nil
}

// locate finds the messages of a key that has not ended.
func (p *Publisher) locate(ctx context.Context, kind, token string, r *Record) (string, error) {
	jobs, retries := p.Topology.JobsStream(), p.Topology.RetriesStream()
	for _, place := range []struct {
		stream, subject string
		found           func(m *jetstream.RawStreamMsg) (string, error)
	}{
		{retries, Subject(p.Topology.SpentRoot(), kind, token), is(StatusSpent)},
		{retries, Subject(p.Topology.DueRoot(), kind, token), p.delivered(ctx, retries, kind, r)},
		{retries, Subject(p.Topology.AtRoot(), kind, token) + ".*", is(StatusWaiting)},
		{jobs, Subject(p.Topology.JobsRoot(), kind, token), p.delivered(ctx, jobs, kind, r)},
	} {
		m, err := getMsg(ctx, p.js, place.stream, msgAsk{LastFor: place.subject})
		if err == nil {
			return place.found(m)
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return "", fmt.Errorf("look for %s: %w", place.subject, awayOr(notProvisioned(err)))
		}
	}
	if r != nil {
		return StatusWaiting, nil // between two moves, or a replay that was interrupted
	}
	return StatusUnknown, nil
}

func is(state string) func(*jetstream.RawStreamMsg) (string, error) {
	return func(*jetstream.RawStreamMsg) (string, error) { return state, nil }
}

// delivered tells queued from running and waiting: a message at or before the
// place that its consumer has reached is in a worker's hands, or between two
// attempts.
func (p *Publisher) delivered(ctx context.Context, stream, kind string, r *Record) func(*jetstream.RawStreamMsg) (string, error) {
	return func(m *jetstream.RawStreamMsg) (string, error) {
		if r != nil && r.Move != nil && r.Move.Verb == Nak && r.Move.Due.After(time.Now()) {
			return StatusWaiting, nil
		}
		downstream, err := p.downstream(ctx, kind)
		if downstream == "" || err != nil {
			return StatusQueued, err // nobody serves it
		}
		c, err := p.js.Consumer(ctx, stream, DurableName(downstream))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return StatusQueued, nil
		}
		if err != nil {
			return "", fmt.Errorf("%w: read consumer of %s: %w", ErrUnavailable, downstream, err)
		}
		if m.Sequence <= c.CachedInfo().Delivered.Stream {
			return StatusRunning, nil
		}
		return StatusQueued, nil
	}
}

// downstream of a kind as declared; empty for one that nobody declared.
func (p *Publisher) downstream(ctx context.Context, kind string) (string, error) {
	if k, ok := p.kinds[kind]; ok {
		return k.Downstream, nil
	}
	kinds, err := p.Topology.Kinds(ctx, p.js)
	if err != nil {
		return "", err
	}
	for _, k := range kinds {
		if k.Name == kind {
			return k.Downstream, nil
		}
	}
	return "", nil
}
