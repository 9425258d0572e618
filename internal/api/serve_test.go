package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// serve runs s until cancel is called; ended has what Serve returned.
func serve(t *testing.T, s *api.Server) (addr string, cancel func(), ended <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(stop)
	return l.Addr().String(), stop, done
}

// begin sends a POST's head and returns once the server asks for the body.
func begin(t *testing.T, addr string, length int) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "POST /v1/jobs/llm.complete HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", addr, length)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return c, r
}

func TestARequestInHandIsAnsweredAtShutdown(t *testing.T) {
	env := natstest.Server(t)
	addr, cancel, ended := serve(t, newServer(t, env, mulligan.Topology{}))
	c, r := begin(t, addr, 7)
	cancel()
	for { // until it takes no more
		again, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		_ = again.Close()
	}
	if _, err := io.WriteString(c, "payload"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Errorf("got status %d, want 202", res.StatusCode)
	}
	if err := <-ended; err != nil {
		t.Errorf("got %v from a clean shutdown", err)
	}
}

func TestABodyThatIsTooSlowIsGivenUp(t *testing.T) {
	env := natstest.Server(t)
	s := newServer(t, env, mulligan.Topology{})
	s.ReadTimeout = 200 * time.Millisecond
	addr, cancel, ended := serve(t, s)
	_, r := begin(t, addr, 7)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(body), "/problems/slow-body") {
		t.Errorf("got status %d: %s", res.StatusCode, body)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the connection is still open")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v from a clean shutdown", err)
	}
}

func TestAServerLostWhileTheBodyArrivesStoresNothing(t *testing.T) {
	env := natstest.Server(t)
	addr, _, _ := serve(t, newServer(t, env, mulligan.Topology{}))
	c, r := begin(t, addr, 7)
	lost := env.Conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING)
	env.Down()
	<-lost
	_, _ = io.WriteString(c, "payload")
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("got status %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
	env.Restart(t)
	if n := env.Account(t).Held(); n != 0 {
		t.Errorf("got %d jobs stored, want none", n)
	}
}

func TestABodyThatEndsEarlyStoresNothing(t *testing.T) {
	env := natstest.Server(t)
	addr, _, _ := serve(t, newServer(t, env, mulligan.Topology{}))
	c, r := begin(t, addr, 7)
	_, _ = io.WriteString(c, "pay")
	_ = c.(*net.TCPConn).CloseWrite()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("got status %d, want 400", res.StatusCode)
	}
}

func TestAListenerThatFailsEndsTheServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := new(api.Server).Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v, want the address that is not served", err)
	}
}
