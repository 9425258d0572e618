package mulligan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
)

// Declare writes kinds to the bucket of kinds, where publishers, operators and
// other workers read them, with their defaults filled in. It returns those that another worker had declared
// differently, as they were.
func (t Topology) Declare(ctx context.Context, js jetstream.JetStream, kinds []Kind) (differed []Kind, err error) {
	kv, err := js.KeyValue(ctx, t.KindsBucket())
	if err != nil {
		return nil, fmt.Errorf("declare kinds: %w", notProvisioned(err))
	}
	for _, k := range kinds {
		k, err := k.Normal()
		if err != nil {
			return differed, fmt.Errorf("declare kinds: %w", err)
		}
		had, err := kv.Get(ctx, k.Name)
		switch {
		case err == nil && bytes.Equal(had.Value(), k.encode()):
			continue
		case err == nil:
			old, err := readKind(k.Name, had.Value())
			if err == nil && old == k {
				continue // written by a program that knew fewer fields
			}
			differed = append(differed, old)
		case !errors.Is(err, jetstream.ErrKeyNotFound):
			return differed, fmt.Errorf("declare kind %s: %w", k.Name, err)
		}
		if _, err := call.Do(ctx, "kind.declare", func() (uint64, error) { return kv.Put(ctx, k.Name, k.encode()) }); err != nil {
			return differed, fmt.Errorf("declare kind %s: %w", k.Name, err)
		}
	}
	return differed, nil
}

// Kinds reads every declared kind, sorted by name.
func (t Topology) Kinds(ctx context.Context, js jetstream.JetStream) ([]Kind, error) {
	var (
		kinds []Kind
		bad   error
	)
	stop, err := t.WatchKinds(ctx, js, func(name string, k *Kind, err error) {
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("read kind %s: %w", name, err))
		} else if k != nil {
			kinds = append(kinds, *k)
		}
	})
	if err != nil {
		return nil, err
	}
	stop()
	slices.SortFunc(kinds, func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
	return kinds, bad
}

// Kind reads what one kind is declared as. It fails with [ErrUnknownKind] for one
// that is not declared.
func (t Topology) Kind(ctx context.Context, js jetstream.JetStream, name string) (Kind, error) {
	kv, err := js.KeyValue(ctx, t.KindsBucket())
	if err != nil {
		return Kind{}, fmt.Errorf("read kind %s: %w", name, notProvisioned(err))
	}
	e, err := kv.Get(ctx, name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Kind{}, fmt.Errorf("%w: %s", ErrUnknownKind, name)
	}
	if err != nil {
		return Kind{}, fmt.Errorf("read kind %s: %w", name, err)
	}
	k, err := readKind(name, e.Value())
	if err != nil {
		return k, fmt.Errorf("read kind %s: %w", name, err)
	}
	return k, nil
}

// WatchKinds tells learn of every declared kind, and then of each that changes;
// nil is one that was taken away, or cannot be read and why. It returns once
// learn knows those that are there. learn is called by one goroutine at a time,
// until stop returns or the connection is closed; ctx bounds only the beginning.
func (t Topology) WatchKinds(ctx context.Context, js jetstream.JetStream, learn func(name string, k *Kind, err error)) (stop func(), err error) {
	kv, err := js.KeyValue(ctx, t.KindsBucket())
	if err != nil {
		return nil, fmt.Errorf("read kinds: %w", notProvisioned(err))
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	w, err := kv.WatchAll(life)
	if err != nil {
		end()
		return nil, fmt.Errorf("read kinds: %w", err)
	}
	known, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer end()
		for e := range w.Updates() {
			switch {
			case e == nil: // all that was there has come
				close(known)
			case life.Err() == nil:
				k, err := entryKind(e)
				learn(e.Key(), k, err)
			}
		}
	}()
	stop = func() {
		end()
		<-done
	}
	select {
	case <-known:
		return stop, nil
	case <-done:
		return nil, errors.New("read kinds: the connection was closed")
	case <-ctx.Done():
		stop()
		return nil, fmt.Errorf("read kinds: %w", ctx.Err())
	}
}

func entryKind(e jetstream.KeyValueEntry) (*Kind, error) {
	if e.Operation() != jetstream.KeyValuePut {
		return nil, nil
	}
	k, err := readKind(e.Key(), e.Value())
	if err != nil {
		return nil, err
	}
	return &k, nil
}

// readKind reads a declared kind, with defaults for what its writer did not
// know. One that is not well declared, as by a newer program, is itself.
func readKind(name string, b []byte) (Kind, error) {
	var k Kind
	if err := json.Unmarshal(b, &k); err != nil {
		return k, err
	}
	if k.Name != name {
		return k, fmt.Errorf("it is declared under another name, %s", brief(k.Name))
	}
	if n, err := k.Normal(); err == nil {
		return n, nil
	}
	return k, nil
}

func notProvisioned(err error) error {
	if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w (%w)", ErrNoTopology, err)
	}
	return err
}
