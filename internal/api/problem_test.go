package api

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
)

func TestProblemOfAnErrorThatTheClientDidNotCause(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		want   string
	}{
		{"a job that may be stored", fmt.Errorf("publish k: %w: %w", mulligan.ErrUnconfirmed, nats.ErrTimeout), 503, "unconfirmed"},
		{"a job that certainly is not", fmt.Errorf("%w: look: %w", mulligan.ErrUnavailable, context.DeadlineExceeded), 503, "unavailable"},
		{"a state that was not found in time", fmt.Errorf("read kinds: %w", context.DeadlineExceeded), 503, "unavailable"},
		{"a connection that is closed", fmt.Errorf("read kinds: %w", nats.ErrConnectionClosed), 503, "unavailable"},
		{"a full stream", fmt.Errorf("publish: %w: %w", mulligan.ErrStreamFull, errors.New("nats: API error")), 503, "stream-full"},
		{"no stream", mulligan.ErrNoTopology, 503, "not-provisioned"},
		{"anything else", errors.New("decode record: unexpected end"), 500, "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := problemOf(tt.err)
			if p.Status != tt.status || p.Type != tt.want {
				t.Errorf("%v: got %d %s, want %d %s", tt.err, p.Status, p.Type, tt.status, tt.want)
			}
			if (p.retryAfter > 0) != (p.Status == 503) {
				t.Errorf("%v: got retry after %d with %d", tt.err, p.retryAfter, p.Status)
			}
		})
	}
}
