// Package cas changes the values of a key-value bucket by compare-and-set.
package cas

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// A Bucket is a key-value bucket. It is safe for concurrent use.
type Bucket struct {
	// Away, if set before the first call, is told of each call of Update that
	// brings no answer and is made again, and with nil of the next answer.
	Away func(err error)

	away   atomic.Bool
	js     jetstream.JetStream
	stream jetstream.Stream
	prefix string
}

// Open looks a bucket up.
func Open(ctx context.Context, js jetstream.JetStream, name string) (*Bucket, error) {
	s, err := js.Stream(ctx, "KV_"+name)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return &Bucket{js: js, stream: s, prefix: "$KV." + name + "."}, nil
}

// A Change is what to store instead of a value; the zero Change stores nothing.
type Change struct {
	Value []byte
	TTL   time.Duration // of this key; zero is the bucket's
	// None stores that there is no value, as of a key that was deleted.
	None bool

	over uint64 // the revision that it replaces
}

const operationHeader = "KV-Operation" // of a marker, which has no value

// Load returns the value of key and its revision; nil if there is none. The
// revision of a key that was deleted or has expired is that of its marker.
func (b *Bucket) Load(ctx context.Context, key string) ([]byte, uint64, error) {
	m, err := b.stream.GetLastMsgForSubject(ctx, b.prefix+key)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, fmt.Errorf("load %s: %w", key, err)
	case m.Header.Get(operationHeader) != "" || m.Header.Get(jetstream.MarkerReasonHeader) != "":
		return nil, m.Sequence, nil
	}
	return m.Data, m.Sequence, nil
}

// A Sight is a value as its holder last saw it, with its revision; the zero Sight
// is none. It is not safe for concurrent use.
type Sight struct {
	known    bool
	value    []byte
	revision uint64
}

// Unwritten is the sight of a key that is taken for one which has no value.
func Unwritten() Sight { return Sight{known: true} }

// Update stores what apply makes of the value of key (nil if there is none).
// When another has changed the key meanwhile, or the answer is lost, the value
// is read and apply called again; so apply must find its own work in the value
// if doing it twice would matter.
//
// A server of a cluster answers reads from what it knows, also when it leads no more
// and has not noticed. What is stored most servers have: who must be certain of a
// value stores it again as it is.
//
// While the server is away Update waits, until ctx ends; then the change may or may
// not have been stored.
func (b *Bucket) Update(ctx context.Context, name call.Update, key string, apply func(value []byte) (Change, error)) error {
	return b.UpdateSeen(ctx, name, key, new(Sight), apply)
}

// UpdateSeen is Update for one who has seen the value before: it reads it only if
// that was not the last, which storing shows. Where apply stores nothing, nothing
// shows it, so that it is read after all. Afterwards seen is what there is now.
func (b *Bucket) UpdateSeen(ctx context.Context, name call.Update, key string, seen *Sight, apply func(value []byte) (Change, error)) error {
	for try := 0; ; try++ {
		read, err := !seen.known, error(nil)
		if read {
			*seen, err = b.look(ctx, name.Load(), key)
		}
		if err == nil {
			c, refused := apply(seen.value)
			nothing := refused != nil || c.Value == nil && !c.None
			switch {
			case nothing && !read:
				*seen = Sight{}
				continue
			case nothing:
				b.answered()
				return refused
			}
			c.over = seen.revision
			*seen, err = b.store(ctx, name.Store(), key, c)
		}
		wait := min(time.Duration(try+1)*50*time.Millisecond, 2*time.Second)
		switch {
		case err == nil:
			b.answered()
			return nil
		case conflict(err):
			wait = time.Duration(min(try, 20)) * time.Duration(1+rand.IntN(3)) * time.Millisecond
		case errors.Is(err, nats.ErrMaxPayload):
			return fmt.Errorf("update %s: %w", key, err)
		default:
			b.unanswered(ctx, err)
		}
		if err := pause.For(ctx, wait); err != nil {
			return fmt.Errorf("update %s: %w", key, err)
		}
	}
}

func (b *Bucket) unanswered(ctx context.Context, err error) {
	if b.Away != nil && ctx.Err() == nil { // else nobody waits for the answer
		b.away.Store(true)
		b.Away(err)
	}
}

func (b *Bucket) answered() {
	if b.away.Load() && b.away.Swap(false) {
		b.Away(nil)
	}
}

// answerWithin bounds one call, so that a lost answer is asked for again.
const answerWithin = 5 * time.Second

func (b *Bucket) look(ctx context.Context, step call.Step, key string) (Sight, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return call.Do(ctx, step, func() (Sight, error) {
		value, revision, err := b.Load(ctx, key)
		return Sight{err == nil, value, revision}, err
	})
}

// store returns what is there then; no sight after an error.
func (b *Bucket) store(ctx context.Context, step call.Step, key string, c Change) (Sight, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(c.over)}
	if c.TTL > 0 {
		opts = append(opts, jetstream.WithMsgTTL(c.TTL.Round(time.Second)))
	}
	m := &nats.Msg{Subject: b.prefix + key, Data: c.Value}
	if c.None {
		m.Header = nats.Header{operationHeader: {"DEL"}}
	}
	return call.Do(ctx, step, func() (Sight, error) {
		ack, err := b.js.PublishMsg(ctx, m, opts...)
		if err != nil {
			return Sight{}, err
		}
		return Sight{true, c.Value, ack.Sequence}, nil
	})
}

// conflict reports whether another has changed the key meanwhile.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongLastSequenceConstant)
}

// codeWrongLastSequenceConstant is a cluster's form of wrong last sequence.
const codeWrongLastSequenceConstant = 10164
