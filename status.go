package mulligan

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
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

// Result returns the recorded result of a job that is done. It fails with
// [ErrNotDone], with [ErrDead] and the reason, or with [ErrNotFound] for a job of
// which nothing is known: a pure one that is done keeps its result only if its
// kind says so. Use [Publisher.Wait] to wait for it.
func (p *Publisher) Result(ctx context.Context, kind, id string) (*Result, error) {
	st, err := p.Status(ctx, kind, id)
	if err != nil {
		return nil, err
	}
	return st.Result()
}

// Result is the recorded result, or the error that [Publisher.Result] fails with.
func (s Status) Result() (*Result, error) {
	switch s.State {
	case StatusDone:
		return s.Record.Result, nil
	case StatusSpent, StatusDead:
		return nil, fmt.Errorf("%w: %s %.80q is %s, %s", ErrDead, s.Kind, s.ID, s.State, s.Record.Reason)
	case StatusUnknown:
		return nil, fmt.Errorf("%w: %s %.80q was never published, or is a pure job whose result is not kept", ErrNotFound, s.Kind, s.ID)
	}
	return nil, fmt.Errorf("%w: %s %.80q is %s", ErrNotDone, s.Kind, s.ID, s.State)
}

// Wait waits until a job is done, spent or dead, or until nothing is known of
// it, which is how a pure job ends whose result is not kept. When ctx ends first
// it returns what the job was last, and ctx's error.
func (p *Publisher) Wait(ctx context.Context, kind, id string) (Status, error) {
	const first, longest = 5 * time.Millisecond, time.Second // between looks
	if err := p.connect(ctx); err != nil {
		return Status{Kind: kind, ID: id, State: StatusUnknown}, err
	}
	// Whoever changes the record is heard, so that a look follows at once. What
	// is heard is a hint only: it may be refused, or not be stored yet.
	heard := make(chan struct{}, 1)
	if checkID(id) == nil && ValidKindName(kind) == nil {
		sub, err := p.Conn.Subscribe("$KV."+p.Topology.LedgerBucket()+"."+RecordKey(kind, Token(id)), func(*nats.Msg) {
			select {
			case heard <- struct{}{}:
			default:
			}
		})
		if err != nil {
			return Status{Kind: kind, ID: id, State: StatusUnknown}, fmt.Errorf("%w: wait for %s: %w", ErrUnavailable, kind, err)
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	last := Status{Kind: kind, ID: id, State: StatusUnknown}
	for wait := first; ; wait = min(2*wait, longest) {
		st, err := p.Status(ctx, kind, id)
		if err == nil {
			last = st
		}
		if ctx.Err() != nil {
			return last, ctx.Err()
		}
		if err != nil || st.ended() || st.State == StatusUnknown {
			return st, err
		}
		look := time.NewTimer(wait)
		select {
		case <-heard:
			wait = first
		case <-look.C:
		case <-ctx.Done():
		}
		look.Stop()
	}
}

func (s Status) ended() bool { return s.Record != nil && s.Record.Ended() }

// locate finds the messages of a key that has not ended.
func (p *Publisher) locate(ctx context.Context, kind, token string, r *Record) (string, error) {
	t, jobs, retries := p.Topology, p.Topology.JobsStream(), p.Topology.RetriesStream()
	for _, place := range []struct {
		stream, subject string
		found           func(m *jetstream.RawStreamMsg) (string, error)
	}{
		{retries, Subject(t.SpentRoot(), kind, token), is(StatusSpent)},
		{retries, Subject(t.DueRoot(), kind, token), p.delivered(ctx, t.DueQueue, kind, r)},
		{retries, Subject(t.DeferredRoot(), kind, token), p.delivered(ctx, t.DeferredQueue, kind, r)},
		{retries, Subject(t.AtRoot(), kind, token) + ".*", is(StatusWaiting)},
		{jobs, Subject(t.JobsRoot(), kind, token), p.delivered(ctx, t.FreshQueue, kind, r)},
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
func (p *Publisher) delivered(ctx context.Context, from func(downstream string) Queue, kind string, r *Record) func(*jetstream.RawStreamMsg) (string, error) {
	return func(m *jetstream.RawStreamMsg) (string, error) {
		if r != nil && r.Move != nil && r.Move.Verb == Nak && r.Move.Due.After(time.Now()) {
			return StatusWaiting, nil
		}
		k, ok := p.kind(kind)
		if !ok {
			return StatusQueued, nil // nobody serves it
		}
		q := from(k.Downstream)
		c, err := ConsumerInfo(ctx, p.js, q.Stream, q.Durable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return StatusQueued, nil
		}
		if err != nil {
			return "", fmt.Errorf("%w: read consumer of %s: %w", ErrUnavailable, k.Downstream, err)
		}
		if m.Sequence <= c.Delivered.Stream {
			return StatusRunning, nil
		}
		return StatusQueued, nil
	}
}
