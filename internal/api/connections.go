package api

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// connections is a listener with room for so many connections at once. Whoever
// comes when all places are taken gets that of the one which has been without a
// request for the longest: those who only hold a connection keep no probe out. If
// all have a request in hand, he waits until one has none.
type connections struct {
	net.Listener
	most int

	mu     sync.Mutex
	change *sync.Cond             // some connection has ended, or has no request any more
	quiet  map[net.Conn]time.Time // since when it has no request; zero if it has one
	closed bool
}

func limited(l net.Listener, most int) *connections {
	c := &connections{Listener: l, most: most, quiet: map[net.Conn]time.Time{}}
	c.change = sync.NewCond(&c.mu)
	return c
}

// Accept waits for the next connection, and for a place for it.
func (l *connections) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.quiet) >= l.most && !l.closed && !l.evict() {
		l.change.Wait()
	}
	if l.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	l.quiet[c] = time.Now()
	return c, nil
}

// evict closes the connection that has been without a request for the longest.
func (l *connections) evict() bool {
	var longest net.Conn
	for c, since := range l.quiet {
		if !since.IsZero() && (longest == nil || since.Before(l.quiet[longest])) {
			longest = c
		}
	}
	if longest == nil {
		return false
	}
	delete(l.quiet, longest)
	_ = longest.Close()
	return true
}

// note follows what becomes of a connection, for [http.Server.ConnState].
func (l *connections) note(c net.Conn, s http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ours := l.quiet[c]; !ours {
		return // evicted
	}
	switch s {
	case http.StateActive:
		l.quiet[c] = time.Time{}
	case http.StateIdle:
		l.quiet[c] = time.Now()
	case http.StateClosed, http.StateHijacked:
		delete(l.quiet, c)
	}
	l.change.Broadcast()
}

// Close ends the waiting in Accept, too.
func (l *connections) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.change.Broadcast()
	return l.Listener.Close()
}
