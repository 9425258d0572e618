package embedded_test

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/embedded"
)

const anyPort = "127.0.0.1:0"

func start(t *testing.T, o embedded.Options) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func connect(t *testing.T, s *embedded.Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func TestAJobOutlivesItsServer(t *testing.T) {
	dir := t.TempDir()
	kinds := []mulligan.Kind{{Name: "blob.keep", Effect: mulligan.Pure}}
	s := start(t, embedded.Options{Dir: dir, Listen: anyPort})
	nc, js := connect(t, s)
	if err := (mulligan.Topology{}).Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	payload := bytes.Repeat([]byte("x"), 1<<20)
	p := mulligan.Publisher{Conn: nc, Kinds: kinds}
	if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "blob.keep", ID: "a", Payload: payload}); err != nil {
		t.Fatalf("a job of 1 MiB: %v", err)
	}
	nc.Close()
	s.Shutdown()

	s = start(t, embedded.Options{Dir: dir, Listen: anyPort, SyncInterval: time.Second})
	defer s.Shutdown()
	nc, _ = connect(t, s)
	defer nc.Close()
	p = mulligan.Publisher{Conn: nc, Kinds: kinds}
	st, err := p.Status(t.Context(), "blob.keep", "a")
	if err != nil || st.State != mulligan.StatusQueued {
		t.Errorf("after a restart the job is %q, %v, want queued", st.State, err)
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := start(t, embedded.Options{Dir: dir, Listen: anyPort})
	_, err := embedded.Start(embedded.Options{Dir: dir, Listen: anyPort})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second server in the directory gave %v", err)
	}
	s.Shutdown()
	start(t, embedded.Options{Dir: dir, Listen: anyPort}).Shutdown()
}

func TestAPortInUseIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = embedded.Start(embedded.Options{Dir: t.TempDir(), Listen: l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "--nats-listen") {
		t.Errorf("a port in use gave %v", err)
	}
}

func TestATokenIsAskedFor(t *testing.T) {
	s := start(t, embedded.Options{Dir: t.TempDir(), Listen: anyPort, Token: "secret"})
	defer s.Shutdown()
	if nc, err := nats.Connect(s.ClientURL()); err == nil {
		nc.Close()
		t.Error("a client without the token was let in")
	}
	nc, err := nats.Connect(s.ClientURL(), nats.Token("secret"))
	if err != nil {
		t.Fatalf("a client with the token: %v", err)
	}
	nc.Close()
	nc, _ = connect(t, s)
	nc.Close()
}

func TestADirectoryThatCannotBeMadeIsRefused(t *testing.T) {
	_, err := embedded.Start(embedded.Options{Dir: "/dev/null/data", Listen: anyPort})
	if err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("got %v, want an error that names --data", err)
	}
}
