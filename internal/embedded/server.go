// Package embedded runs a NATS server inside the program, so that one binary is
// all that a first installation needs.
package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// Options say where a server keeps its streams and who may connect.
type Options struct {
	// Dir is created if it is missing. One process at a time uses it: the file
	// "lock" in it is locked while a server runs.
	Dir string
	// Listen is where clients connect, such as 127.0.0.1:4222; port 0 takes a
	// free one.
	Listen string
	// SyncInterval is how often streams are flushed to disk; zero is before
	// every answer, so that an accepted job survives a loss of power.
	SyncInterval time.Duration
	// Token must be given by every client; empty lets everyone connect.
	Token string
	// Log gets the server's own log, at the level debug.
	Log zerolog.Logger
}

// MaxPayload fits a job of 1 MiB, its publisher's headers, and the 64 KiB that
// moves may add.
const MaxPayload = 1<<20 + 8<<10 + 64<<10

const startWait = 30 * time.Second // a large store takes its time to recover

// A Server is a running NATS server with JetStream.
type Server struct {
	nats  *server.Server
	token string
	lock  *os.File
}

// Start runs a server and returns once it takes clients. Its data is that of
// the last one that ran in the same directory.
func Start(o Options) (*Server, error) {
	host, port, err := address(o.Listen)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the data directory: %w; choose another with --data", err)
	}
	lock, err := lockDir(filepath.Join(o.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("data directory %s %w", o.Dir, err)
	}
	ns, err := run(&server.Options{
		ServerName: "mulligan", Host: host, Port: port, Authorization: o.Token, NoSigs: true,
		JetStream: true, DisableJetStreamBanner: true, StoreDir: o.Dir, MaxPayload: MaxPayload,
		SyncAlways: o.SyncInterval == 0, SyncInterval: o.SyncInterval,
	}, o.Log)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &Server{nats: ns, token: o.Token, lock: lock}, nil
}

// address splits where to listen, and reports at once if somebody else does:
// the server itself would only say so in its log.
func address(listen string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("NATS address %q is not one such as 127.0.0.1:4222", listen)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return "", 0, fmt.Errorf("listen for NATS clients: %w; choose another address with --nats-listen", err)
	}
	if err := l.Close(); err != nil {
		return "", 0, fmt.Errorf("listen for NATS clients: %w", err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		return "", 0, fmt.Errorf("NATS address %q has no number for a port", listen)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	if host == "" {
		host = server.DEFAULT_HOST
	}
	return host, port, nil
}

func run(opts *server.Options, log zerolog.Logger) (*server.Server, error) {
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("start the embedded NATS server: %w", err)
	}
	l := &logger{log: log, fatal: make(chan string, 1)}
	ns.SetLoggerV2(l, log.GetLevel() <= zerolog.DebugLevel, false, false)
	ready := make(chan bool, 1)
	go func() {
		ns.Start()
		ready <- ns.ReadyForConnections(startWait)
	}()
	select {
	case ok := <-ready:
		if ok {
			return ns, nil
		}
		err = errors.New("it did not become ready")
	case text := <-l.fatal:
		err = errors.New(text)
	}
	ns.Shutdown()
	return nil, fmt.Errorf("start the embedded NATS server: %w", err)
}

// ClientURL is where clients connect.
func (s *Server) ClientURL() string { return s.nats.ClientURL() }

// Connect returns a connection that does not use the network.
func (s *Server) Connect(options ...nats.Option) (*nats.Conn, error) {
	options = append(options, nats.InProcessServer(s.nats), nats.Token(s.token))
	nc, err := nats.Connect("", options...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// Shutdown ends the server, and returns when its data is on disk and the
// directory is free for another. Close the connections before.
func (s *Server) Shutdown() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
	_ = s.lock.Close() // which unlocks it
}

// Version is that of the server.
func Version() string { return server.VERSION }
