package scheduler_test

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// A cutter is a connection that ends for good when it is to carry a word for
// the nth time.
type cutter struct {
	net.Conn
	env  *natstest.Env
	word string

	mu sync.Mutex
	n  int
}

func (c *cutter) InProcessConn() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		return nil, net.ErrClosed
	}
	var err error
	c.Conn, err = c.env.InProcessConn()
	return c, err
}

func (c *cutter) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.n = max(c.n-bytes.Count(b, []byte(c.word)), 0)
	cut := c.n == 0
	c.mu.Unlock()
	if cut {
		_ = c.Conn.Close()
	}
	return c.Conn.Write(b)
}

func TestLettersThatTheServerStopsSendingAreAnError(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		f.shelve(t, "a", "b", mulligan.AttemptsExhausted)
		// The client makes a consumer to look, and another to read.
		line := &cutter{env: f.Env, word: "$JS.API.CONSUMER.CREATE.", n: 2}
		nc, err := nats.Connect("", nats.InProcessServer(line), nats.MaxReconnects(-1), nats.ReconnectWait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		answer := make(chan error, 1)
		go func() {
			_, err := (&scheduler.Scheduler{Conn: nc}).Letters(t.Context(), scheduler.Query{})
			answer <- err
		}()
		select {
		case err := <-answer:
			if !errors.Is(err, mulligan.ErrUnavailable) || line.n != 0 {
				t.Errorf("got %v after %d cuts, want %v", err, 1-line.n, mulligan.ErrUnavailable)
			}
		case <-time.After(time.Minute):
			t.Error("it still waits after a minute")
			nc.Close()
		}
	})
}
