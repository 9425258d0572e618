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
			var old Kind
			if json.Unmarshal(had.Value(), &old) == nil {
				differed = append(differed, old)
			}
		case !errors.Is(err, jetstream.ErrKeyNotFound):
			return differed, fmt.Errorf("declare kind %s: %w", k.Name, err)
		}
		if _, err := kv.Put(ctx, k.Name, k.encode()); err != nil {
			return differed, fmt.Errorf("declare kind %s: %w", k.Name, err)
		}
	}
	return differed, nil
}

// Kinds reads every declared kind, sorted by name.
func (t Topology) Kinds(ctx context.Context, js jetstream.JetStream) ([]Kind, error) {
	kv, err := js.KeyValue(ctx, t.KindsBucket())
	if err != nil {
		return nil, fmt.Errorf("read kinds: %w", notProvisioned(err))
	}
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("read kinds: %w", err)
	}
	defer func() { _ = w.Stop() }()
	var kinds []Kind
	for {
		select {
		case e := <-w.Updates():
			if e == nil { // all that was there has come
				slices.SortFunc(kinds, func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
				return kinds, nil
			}
			var k Kind
			if err := json.Unmarshal(e.Value(), &k); err != nil {
				return nil, fmt.Errorf("read kind %s: %w", e.Key(), err)
			}
			kinds = append(kinds, k)
		case <-ctx.Done():
			return nil, fmt.Errorf("read kinds: %w", ctx.Err())
		}
	}
}

func notProvisioned(err error) error {
	if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		return fmt.Errorf("%w (%w)", ErrNoTopology, err)
	}
	return err
}
