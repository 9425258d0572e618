// Package dedupe keeps the ledger: the record of each key, which says how often
// its job was tried, what came of it and what its result was. The record is
// what makes a key run once and two messages of one key share one budget.
package dedupe

import (
	"context"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/cas"
)

// A Ledger reads and changes records. It is safe for concurrent use.
type Ledger struct{ bucket *cas.Bucket }

// OnAway has fn told, from before the first call on, of each call of
// [Ledger.Update] that brings no answer and is made again, and with nil of the
// next answer.
func (l *Ledger) OnAway(fn func(err error)) { l.bucket.Away = fn }

// Open looks up the ledger of a topology.
func Open(ctx context.Context, js jetstream.JetStream, t mulligan.Topology) (*Ledger, error) {
	b, err := cas.Open(ctx, js, t.LedgerBucket())
	if err != nil {
		return nil, err
	}
	return &Ledger{bucket: b}, nil
}

// Load returns the record of a key; nil if there is none. It fails with
// [ErrUnreadable] on a record that it cannot decode.
func (l *Ledger) Load(ctx context.Context, key string) (*mulligan.Record, error) {
	b, _, err := l.bucket.Load(ctx, key)
	if b == nil || err != nil {
		return nil, err
	}
	return decode(key, b)
}

// Update lets apply change the record of a key and stores it if apply returns
// true. Where there is no record apply is given an empty one, without a state.
//
// The change is made by compare-and-set: when another has changed the record
// meanwhile, or the answer is lost, apply is called again with the record just
// read. While the server is away Update waits, until ctx ends. It fails with
// [ErrUnreadable] on a record that it cannot decode.
//
// A record without a state is stored as none. What is stored is certain, also if apply
// changed nothing; what is only read may be old, for a server of a cluster that leads
// no more answers until it notices.
//
// The name is that of the step, for tests that stop there.
func (l *Ledger) Update(ctx context.Context, name call.Update, key string, apply func(r *mulligan.Record) (store bool)) error {
	return l.bucket.Update(ctx, name, key, func(value []byte) (cas.Change, error) {
		r, err := decode(key, value)
		if err != nil {
			return cas.Change{}, err
		}
		return changed(r, apply), nil
	})
}

// A Sight is a record as its holder last saw it; the zero Sight is none. It is not
// safe for concurrent use.
type Sight struct {
	stored cas.Sight
	record *mulligan.Record // what is stored, decoded; nil if that was not done, or there is none
}

// Unwritten is the sight of a key that is taken for one without a record.
func Unwritten() Sight { return Sight{stored: cas.Unwritten()} }

// UpdateSeen is Update for one who has seen the record before. It reads it only if
// it has changed since, or if apply stores nothing, and afterwards seen is what
// there is now. One call of the server is saved, and nothing of what Update
// promises. A record that apply had stored is not to be changed afterwards; one that
// it left is its own.
func (l *Ledger) UpdateSeen(ctx context.Context, name call.Update, key string, seen *Sight, apply func(r *mulligan.Record) (store bool)) error {
	known := seen.record // of the first value that apply is asked about, if that is the one seen
	seen.record = nil
	var now *mulligan.Record
	err := l.bucket.UpdateSeen(ctx, name, key, &seen.stored, func(value []byte) (cas.Change, error) {
		r, err := known, error(nil)
		if known = nil; r == nil {
			if r, err = decode(key, value); err != nil {
				return cas.Change{}, err
			}
		}
		if now = nil; value != nil {
			now, r = r, clone(r) // apply may change what it does not store
		}
		c := changed(r, apply)
		switch {
		case c.Value != nil:
			now = r
		case c.None:
			now = nil
		}
		return c, nil
	})
	if err == nil {
		seen.record = now
	}
	return err
}

// clone copies a record so that a change of the copy is none of the record. The
// bytes that both have nobody changes.
func clone(r *mulligan.Record) *mulligan.Record {
	c := *r
	c.Steps, c.Changes, c.History = slices.Clone(r.Steps), slices.Clone(r.Changes), slices.Clone(r.History)
	c.Start, c.Move, c.Result = copied(r.Start), copied(r.Move), copied(r.Result)
	for i := range c.Steps {
		c.Steps[i].Result = copied(c.Steps[i].Result)
	}
	return &c
}

func copied[T any](of *T) *T {
	if of == nil {
		return nil
	}
	c := *of
	return &c
}

// Replace is Update for a person who knows what became of the key: a record that
// cannot be decoded is taken for none.
func (l *Ledger) Replace(ctx context.Context, name call.Update, key string, apply func(r *mulligan.Record) (store bool)) error {
	return l.bucket.Update(ctx, name, key, func(value []byte) (cas.Change, error) {
		r, err := decode(key, value)
		if err != nil {
			r = new(mulligan.Record)
		}
		return changed(r, apply), nil
	})
}

func changed(r *mulligan.Record, apply func(r *mulligan.Record) (store bool)) cas.Change {
	switch store := apply(r); {
	case !store:
		return cas.Change{}
	case r.State == "":
		return cas.Change{None: true}
	}
	return cas.Change{Value: r.Encode()}
}

// decode reads a record; no value is an empty one.
func decode(key string, value []byte) (*mulligan.Record, error) {
	if value == nil {
		return new(mulligan.Record), nil
	}
	r, err := mulligan.DecodeRecord(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreadable, key, err)
	}
	return r, nil
}
