package api

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// What a request may have and cost. The README's table of limits names these.
const (
	maxURI             = 4 << 10   // of the request line
	maxHeaderBytes     = 32 << 10  // of all header lines
	maxHeaderLines     = 100       // of a request
	maxHeadBytes       = 64 << 10  // beyond, net/http refuses by itself and in plain text
	maxBodies          = 128 << 20 // of all payloads in hand
	maxDrained         = 8 << 20   // of a refused body
	maxWait            = time.Minute
	maxQueue           = time.Second / 2 // for a place to ask NATS
	maxCollectors      = 8               // that read the metrics at once
	defaultConnections = 4096
	defaultRequests    = 64
	defaultWaiting     = 1000
)

// rooms are what the requests in hand share.
type rooms struct {
	waiting chan struct{}   // a place is taken by each that waits for the end of a job
	asking  chan struct{}   // and by each that asks NATS
	bodies  atomic.Int64    // bytes of payloads
	closing <-chan struct{} // closed when the server takes no more; nil is never
}

func (s *Server) rooms(closing <-chan struct{}) *rooms {
	return &rooms{
		waiting: make(chan struct{}, orDefault(s.MaxWaiting, defaultWaiting)),
		asking:  make(chan struct{}, orDefault(s.MaxRequests, defaultRequests)),
		closing: closing,
	}
}

func orDefault[T int | time.Duration](n, otherwise T) T {
	if n == 0 {
		return otherwise
	}
	return n
}

// ask takes a place among those that ask NATS, and waits for one, but not for
// long: while NATS is stalled those who have one keep it. Give it back with
// asked.
func (r *rooms) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxQueue)
	defer cancel()
	select {
	case r.asking <- struct{}{}:
		return nil
	case <-ctx.Done():
		return busy()
	}
}

func (r *rooms) asked() { <-r.asking }

func busy() *problem {
	return &problem{Type: "busy", Status: http.StatusServiceUnavailable, retryAfter: soon,
		Detail: "too many requests are in hand" + nothingStored}
}

// A payload is read and counted among all that are in hand as it arrives, so
// that one which comes slowly takes no more room than what has come of it.
type payload struct {
	io.Reader
	room *rooms
	size int64
}

func (p *payload) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.size += int64(n)
	if p.room.bodies.Add(int64(n)) > maxBodies {
		return n, busy()
	}
	return n, err
}

// leave makes the payload's room free.
func (p *payload) leave() { p.room.bodies.Add(-p.size) }

// oversized says what of a request's head is over its limit; nil is nothing.
func oversized(r *http.Request) *problem {
	if len(r.RequestURI) > maxURI {
		return &problem{Type: "long-path", Status: http.StatusRequestURITooLong, Detail: "the path is over 4 KiB"}
	}
	lines, size := 0, 0
	for name, values := range r.Header {
		lines += len(values)
		for _, v := range values {
			size += len(name) + len(": \r\n") + len(v)
		}
	}
	if lines > maxHeaderLines || size > maxHeaderBytes {
		return &problem{Type: "large-header", Status: http.StatusRequestHeaderFieldsTooLarge, Detail: "the headers are over 100 lines or 32 KiB"}
	}
	return nil
}
