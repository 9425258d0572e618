// Package natstest runs a real NATS server inside a test.
package natstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/mulligan-queue/mulligan"
)

// Options change a test's server.
type Options struct {
	// MaxPayload of a message in bytes; zero is the server's default.
	MaxPayload int32
	// MaxBuffered is how many messages may wait to be stored in a stream; zero is
	// the server's default.
	MaxBuffered int
}

// An Env is a running server with JetStream and a connection to it.
type Env struct {
	// Conn and JS stay valid over a Restart: the connection comes back.
	Conn *nats.Conn
	JS   jetstream.JetStream
	// URL is where the server listens; empty in a bubble.
	URL string
	// Topology is what Provision created.
	Topology mulligan.Topology
	// Server is the running server; Restart replaces it.
	Server *server.Server

	opts     server.Options
	mu       sync.Mutex // guards Server for connections, and what follows
	links    []net.Conn // of a bubble
	down     bool       // and takes no more of them
	accepted map[Key]bool
	ran      map[Key]int
}

const patience = 10 * time.Second // for anything that the server does

// Server starts a server for one test, on a free port of the loopback address
// and with its data in the test's directory. It ends with the test, which fails
// if a key given to Accept was lost.
func Server(t testing.TB) *Env {
	t.Helper()
	return ServerWith(t, Options{})
}

// ServerWith is Server with options.
func ServerWith(t testing.TB, o Options) *Env {
	t.Helper()
	return run(t, server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, MaxPayload: o.MaxPayload, StreamMaxBufferedMsgs: o.MaxBuffered})
}

// InBubble is Server for a test inside testing/synctest: nothing listens, and
// the server lives in the bubble's time. The package's TestMain must call Main,
// and such a test must not run in parallel with others.
func InBubble(t testing.TB) *Env {
	t.Helper()
	t.Cleanup(func() {
		time.Sleep(time.Second) // a client that drains looks every tenth of one whether it is done
		synctest.Wait()
		emptyPools()
	})
	emptyPools()
	return run(t, server.Options{DontListen: true})
}

// Present sets the clock of a bubble to the present; call it before InBubble.
// The server tells the age of what it stores by its clock of access times, which
// is outside. In a bubble that begins in the year 2000 a stream with a maximum
// age loses all that it holds as soon as it is changed; in one that begins now
// nothing gets too old, however long the bubble lives.
func Present() {
	time.Sleep(time.Until(time.Unix(0, ats.AccessTime()).Truncate(time.Hour).Add(time.Hour)))
}

// emptyPools drops what the NATS client keeps in a sync.Pool for the whole
// process: a timer that was made in one bubble must not be used outside of it,
// nor the other way round. A pool lets go of its contents at the second
// collection.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}

// Main runs the tests of a package that starts servers or goroutines, and fails
// if one of these is left. The server's clock of access times is one goroutine for
// the whole process: it must begin outside of every bubble.
func Main(m *testing.M) int {
	ats.Register()
	code := m.Run()
	ats.Unregister()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Start is Server for an example, which has no test to report to: it panics if
// the server does not start. Call stop at the end.
func Start() (e *Env, stop func()) {
	dir, err := os.MkdirTemp("", "natstest")
	if err != nil {
		panic(err)
	}
	e, err = start(server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, StoreDir: dir})
	if err != nil {
		panic(err)
	}
	return e, func() {
		e.stop()
		if err := os.RemoveAll(dir); err != nil {
			panic(err)
		}
	}
}

func run(t testing.TB, opts server.Options) *Env {
	t.Helper()
	opts.StoreDir = t.TempDir()
	e, err := start(opts)
	if err != nil {
		t.Fatalf("start a NATS server: %v", err)
	}
	t.Cleanup(func() {
		e.checkAccepted(t)
		e.stop()
	})
	return e
}

func start(opts server.Options) (*Env, error) {
	opts.JetStream, opts.NoLog, opts.NoSigs = true, true, true
	e := &Env{opts: opts, accepted: map[Key]bool{}, ran: map[Key]int{}}
	if err := e.serve(); err != nil {
		return nil, err
	}
	var err error
	if e.Conn, err = e.connect(); err != nil {
		e.Server.Shutdown()
		return nil, err
	}
	e.JS, err = jetstream.New(e.Conn)
	return e, err
}

// serve starts the server and waits until it takes connections.
func (e *Env) serve() error {
	opts := e.opts // the server fills in what it was not given
	s, err := server.NewServer(&opts)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		s.Shutdown()
		return fmt.Errorf("not ready for connections within %v", patience)
	}
	if addr, ok := s.Addr().(*net.TCPAddr); ok && !opts.DontListen {
		e.opts.Port = addr.Port
		e.URL = fmt.Sprintf("nats://127.0.0.1:%d", addr.Port)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Server, e.down = s, false
	return nil
}

// InProcessConn connects to whichever server runs now; nats.InProcessServer
// takes an Env for it.
func (e *Env) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down || !e.Server.Running() {
		return nil, errors.New("the server is down")
	}
	c, err := e.Server.InProcessConn()
	if err == nil {
		e.links = append(e.links, c)
	}
	return c, err
}

func (e *Env) connect() (*nats.Conn, error) {
	opts := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(10 * time.Millisecond), nats.ReconnectJitter(0, 0)}
	if e.opts.DontListen {
		opts = append(opts, nats.InProcessServer(e))
	}
	return nats.Connect(e.URL, opts...)
}

// Dial returns a further connection, closed with the test.
func (e *Env) Dial(t testing.TB) *nats.Conn {
	t.Helper()
	c, err := e.connect()
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// DialDeaf returns a connection on which nothing arrives while deaf is set: answers
// are lost. It is for a bubble.
func (e *Env) DialDeaf(t testing.TB, deaf *atomic.Bool) *nats.Conn {
	t.Helper()
	c, err := nats.Connect("", nats.InProcessServer(deafDialer{e, deaf}))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

type deafDialer struct {
	env  *Env
	deaf *atomic.Bool
}

func (d deafDialer) InProcessConn() (net.Conn, error) {
	c, err := d.env.InProcessConn()
	return deafConn{c, d.deaf}, err
}

type deafConn struct {
	net.Conn
	deaf *atomic.Bool
}

func (c deafConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.deaf.Load() {
			return n, err
		}
	}
}

// Down shuts the server down; Restart brings it back.
func (e *Env) Down() {
	if e.opts.DontListen {
		e.cut()
	}
	e.Server.Shutdown()
	e.Server.WaitForShutdown()
}

// cut ends all connections before the server shuts down in a bubble: it sleeps
// with its locks held then, and while somebody waits for one of them a bubble's
// time stands still.
func (e *Env) cut() {
	e.mu.Lock()
	links := e.links
	e.links, e.down = nil, true
	e.mu.Unlock()
	for _, c := range links {
		_ = c.Close() // fails if it is closed already
	}
	synctest.Wait()
}

// Restart shuts the server down, unless it is down, and starts it again on the
// same data and port. It returns when Conn is back.
func (e *Env) Restart(t testing.TB) {
	t.Helper()
	gone := e.Conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING)
	defer e.Conn.RemoveStatusListener(gone)
	e.Down()
	if e.Conn.IsConnected() {
		await(t, gone)
	}
	back := e.Conn.StatusChanged(nats.CONNECTED)
	defer e.Conn.RemoveStatusListener(back)
	if err := e.serve(); err != nil {
		t.Fatalf("restart the NATS server: %v", err)
	}
	if !e.Conn.IsConnected() {
		await(t, back)
	}
}

func await(t testing.TB, change <-chan nats.Status) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-change:
	case <-timer.C:
		t.Fatalf("the connection did not change within %v", patience)
	}
}

func (e *Env) stop() {
	e.Conn.Close()
	e.Down()
}

// Provision creates the topology and remembers it for Account.
func (e *Env) Provision(t testing.TB, topology mulligan.Topology) {
	t.Helper()
	ctx, cancel := bounded(t)
	defer cancel()
	if err := topology.Ensure(ctx, e.JS); err != nil {
		t.Fatalf("provision: %v", err)
	}
	e.Topology = topology
}

// bounded is a context that outlives the test's own, for its cleanup.
func bounded(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(t.Context()), 3*patience)
}
