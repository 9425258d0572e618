package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan/internal/config"
	"github.com/mulligan-queue/mulligan/internal/embedded"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// A line is the way to a server. What is on it can go silent: nothing arrives any
// more, and neither side is told. A new connection is heard.
type line struct {
	env *natstest.Env
	now *connection
}

type connection struct {
	net.Conn
	silent atomic.Bool
}

func (l *line) InProcessConn() (net.Conn, error) {
	c, err := l.env.InProcessConn()
	l.now = &connection{Conn: c}
	return l.now, err
}

func (c *connection) Write(b []byte) (int, error) {
	if c.silent.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *connection) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.silent.Load() {
			return n, err
		}
	}
}

// A worker that ends a job on such a link has to acknowledge it on another before
// the server gives it away: 30 seconds after the last sign, which may be 10 old.
func TestALinkThatGoesSilentIsGivenUpBeforeItsJobsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		way := &line{env: natstest.InBubble(t)}
		nc, err := nats.Connect("", append(natsOptions("worker", zerolog.Nop()), nats.InProcessServer(way))...)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		status := nc.StatusChanged(nats.CONNECTED)
		began := time.Now()
		way.now.silent.Store(true)
		select {
		case <-status:
		case <-time.After(time.Hour):
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("a link that went silent was replaced after %v, want within 20s", took)
		}
	})
}

func TestServeThatStartsWhileNobodyAnswersProvisionsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		way := &line{env: natstest.InBubble(t)}
		nc, err := nats.Connect("", append(natsOptions("serve", zerolog.Nop()), nats.InProcessServer(way))...)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		way.now.silent.Store(true)
		p, began := &program{log: zerolog.Nop()}, time.Now()
		if err := p.provisionPatiently(t.Context(), &link{nc: nc, js: js}); err != nil || time.Since(began) < time.Second {
			t.Errorf("got %v after %v, want no error, after the first try has failed", err, time.Since(began))
		}
	})
}

func TestARoleWaitsForItsServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tried, once := make(chan struct{}), sync.Once{}
	p := &program{cfg: config.Config{Settings: config.Settings{NATSURL: "nats://" + at}}}
	p.log = zerolog.New(io.Discard).Hook(zerolog.HookFunc(func(_ *zerolog.Event, _ zerolog.Level, text string) {
		if text == "trying again" {
			once.Do(func() { close(tried) })
		}
	}))
	found := make(chan error, 1)
	go func() {
		l, err := p.connectRole(t.Context(), "worker")
		if err == nil {
			l.close()
		}
		found <- err
	}()
	<-tried
	s, err := embedded.Start(embedded.Options{Dir: t.TempDir(), Listen: at, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	if err := <-found; err != nil {
		t.Error(err)
	}
}

func TestARoleDoesNotWaitForWhatNeverWillBe(t *testing.T) {
	p := &program{log: zerolog.Nop(), cfg: config.Config{Settings: config.Settings{NATSURL: "nats://nobody:port"}}}
	if _, err := p.connectRole(t.Context(), "worker"); err == nil {
		t.Error("no error of an address that is none")
	}
}

// A supervisor that gets no answer would end it, and wait longer each time.
func TestWhoeverWaitsForNATSAnswersThatItLives(t *testing.T) {
	l, err := listenHTTP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	status := func(method, path string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Body.Close(); err != nil {
			t.Error(err)
		}
		return answer.StatusCode
	}
	p := &program{log: zerolog.Nop()}
	defer http.DefaultClient.CloseIdleConnections()
	if err := p.awaiting(t.Context(), l, func() error {
		for _, ask := range []struct {
			method, path string
			want         int
		}{{"GET", "/healthz", 200}, {"GET", "/readyz", 503}, {"POST", "/v1/jobs/mail.send", 503}, {"GET", "/metrics", 503}} {
			if got := status(ask.method, ask.path); got != ask.want {
				t.Errorf("%s %s: %d, want %d", ask.method, ask.path, got, ask.want)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	after := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go func() { _ = after.Serve(l) }()
	defer func() { _ = after.Close() }()
	if got := status("GET", "/healthz"); got != 404 {
		t.Errorf("afterwards: %d, want the answer of who serves then", got)
	}
}
