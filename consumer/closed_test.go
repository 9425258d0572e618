package consumer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// One that is away is waited for, one that is closed never comes back.
func TestNobodyWaitsForAConnectionThatIsClosed(t *testing.T) {
	conn := natstest.Server(t).Dial(t)
	conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := consumer.Worker{Conn: conn}
	w.Handle(pure, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }))
	if err := w.Run(ctx); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("a worker: %v", err)
	}
	s := scheduler.Scheduler{Conn: conn}
	if err := s.Run(ctx); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("a scheduler: %v", err)
	}
}
