package call

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestWhatIsUnansweredIsTriedAgain(t *testing.T) {
	refused := errors.New("no such thing")
	noLeader := &jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "JetStream system temporarily unavailable"}
	for _, tt := range []struct {
		name  string
		errs  []error // then nil
		tries int
		err   error
	}{
		{"an answer is enough", nil, 1, nil},
		{"a refusal is an answer", []error{refused}, 1, refused},
		{"a cluster without a leader", []error{fmt.Errorf("ensure: %w", noLeader), nats.ErrNoResponders, context.DeadlineExceeded}, 4, nil},
		{"a watch in a cluster without a leader", []error{fmt.Errorf("read kinds: %w", &nats.APIError{Code: 503, Description: "JetStream system temporarily unavailable"})}, 2, nil},
		{"a refusal in the end", []error{nats.ErrTimeout, refused}, 2, refused},
		{"however long", slices.Repeat([]error{noLeader}, 1000), 1001, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries, said := 0, 0
				err := Patiently(t.Context(), func() error {
					if tries++; tries > len(tt.errs) {
						return nil
					}
					return tt.errs[tries-1]
				}, func() error { return nil }, func(error) { said++ })
				if !errors.Is(err, tt.err) || tries != tt.tries || said != tries-1 {
					t.Errorf("%d tries, %d said, %v; want %d and %v", tries, said, err, tt.tries, tt.err)
				}
			})
		})
	}
}

func TestWhoeverLacksARightDoesNotWaitForEver(t *testing.T) {
	for _, refused := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			err := Patiently(ctx, func() error { return nats.ErrTimeout }, func() error {
				if refused {
					return fmt.Errorf("%w for Publish", nats.ErrPermissionViolation)
				}
				return nats.ErrSlowConsumer
			}, func(error) {})
			if took := time.Since(began); errors.Is(err, nats.ErrPermissionViolation) != refused || !errors.Is(err, nats.ErrTimeout) || refused == (took >= time.Hour) {
				t.Errorf("refused %v: got %v after %v", refused, err, took)
			}
		})
	}
}
