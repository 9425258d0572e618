package mulligan_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// Whether a worker that starts tries again depends on what the server said.
func TestDeletingAMessageTellsWhatTheServerSaid(t *testing.T) {
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	ack, err := e.JS.Publish(t.Context(), "mulligan.jobs.llm.complete.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, stream string
		want         jetstream.ErrorCode
	}{
		{"it is there", ack.Stream, 0},
		{"it was deleted", ack.Stream, 10057}, // no message at that place
		{"there is no such stream", "NOTHING", jetstream.JSErrCodeStreamNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := mulligan.DeleteMsg(t.Context(), e.JS, tt.stream, ack.Sequence)
			var api *jetstream.APIError
			if errors.As(err, &api) != (tt.want != 0) || api != nil && api.ErrorCode != tt.want {
				t.Errorf("got %v, want code %d", err, tt.want)
			}
		})
	}
	holds(t, e, 0)
}
