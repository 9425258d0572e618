package sim

import (
	"net"
	"sync"
	"time"
)

// wire is the connection of a process to the server. While it is stalled, what
// either side writes waits, and arrives in order afterwards; once it is cut
// nothing arrives any more. No connection is made while it is stalled: the client
// would wait for its handshake with a lock held, and while somebody waits for that a
// bubble's time stands still.
type wire struct {
	dial func() (net.Conn, error)

	mu    sync.Mutex
	until time.Time // stalled
	lines []net.Conn
	cut   chan struct{} // closed when it is
}

// InProcessConn makes it a [nats.InProcessConnProvider].
func (w *wire) InProcessConn() (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isCut() || time.Now().Before(w.until) {
		return nil, net.ErrClosed
	}
	server, err := w.dial()
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	w.lines = append(w.lines, server, far)
	w.carry(server, far)
	w.carry(far, server)
	return near, nil
}

// carry brings what is read of from to to. It reads at once, as an operating
// system does: a stalled process is no slow consumer.
func (w *wire) carry(to, from net.Conn) {
	var (
		mu     sync.Mutex
		queue  [][]byte
		closed bool
	)
	more, made := sync.NewCond(&mu), time.Now()
	go func() {
		for {
			chunk := make([]byte, 16<<10)
			n, err := from.Read(chunk)
			mu.Lock()
			queue, closed = append(queue, chunk[:n]), err != nil
			mu.Unlock()
			more.Signal()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		defer func() { _ = to.Close() }()
		for {
			mu.Lock()
			for len(queue) == 0 && !closed {
				more.Wait()
			}
			if len(queue) == 0 {
				mu.Unlock()
				return
			}
			chunk := queue[0]
			queue = queue[1:]
			mu.Unlock()
			if !w.pass(made) {
				return
			}
			if _, err := to.Write(chunk); err != nil {
				return
			}
		}
	}()
}

// pass waits while the wire is stalled and reports whether it is whole. A handshake
// takes no time, and passes.
func (w *wire) pass(made time.Time) bool {
	for {
		w.mu.Lock()
		wait := time.Until(w.until)
		w.mu.Unlock()
		if w.isCut() || wait <= 0 || time.Now().Equal(made) {
			return !w.isCut()
		}
		select {
		case <-time.After(wait):
		case <-w.cut:
		}
	}
}

func (w *wire) stall(until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = until
}

func (w *wire) stalled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.isCut() && time.Now().Before(w.until)
}

func (w *wire) isCut() bool {
	select {
	case <-w.cut:
		return true
	default:
		return false
	}
}

// sever ends every connection, as the end of a process does.
func (w *wire) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isCut() {
		return
	}
	close(w.cut)
	for _, c := range w.lines {
		_ = c.Close()
	}
}
