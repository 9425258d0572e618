package consumer

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// httpPeer takes each connection on a port of its own and hands it to with. At
// the end of the test it waits until all have ended: no call leaves one behind.
func httpPeer(t *testing.T, with func(net.Conn)) (host string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = conn.Close() }()
				with(conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); conns.Wait() })
	return l.Addr().String()
}

// httpSilent reads until the caller hangs up, and never answers.
func httpSilent(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func httpRefused(t *testing.T) (host string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

// httpDialer is a target whose connections are made by d.
func httpDialer(url string, d net.Dialer) *HTTPTarget {
	target := &HTTPTarget{URL: url}
	target.once.Do(target.open)
	target.transport.Proxy, target.transport.DialContext = nil, d.DialContext
	return target
}

// hang is a dialer's control that lasts until the dialing is given up.
func hang(ctx context.Context, _, _ string, _ syscall.RawConn) error {
	<-ctx.Done()
	return nil
}

func TestHTTPCallThatWasNotSentIsNotStarted(t *testing.T) {
	t.Parallel()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	silent := httpPeer(t, httpSilent)
	hangsUp := httpPeer(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) })
	unreachable := net.Dialer{Control: func(string, string, syscall.RawConn) error { return syscall.EHOSTUNREACH }}
	short := func(target *HTTPTarget) *HTTPTarget { target.Timeout = 30 * time.Millisecond; return target }
	for _, c := range []struct {
		name          string
		target        *HTTPTarget
		want, errType string
	}{
		{"refused", &HTTPTarget{URL: "http://" + httpRefused(t)}, "not started, transient", "refused"},
		{"refused, with TLS", &HTTPTarget{URL: "https://" + httpRefused(t)}, "not started, transient", "refused"},
		// Two dots in a row are no name: no resolver is asked.
		{"no such name", httpDialer("http://mailer..example/", net.Dialer{Resolver: &net.Resolver{PreferGo: true}}), "not started, transient", "dns"},
		{"no way to the host", httpDialer("http://"+silent, unreachable), "not started, transient", "unreachable"},
		{"a dial that takes too long", httpDialer("http://"+silent, net.Dialer{ControlContext: hang, Timeout: 30 * time.Millisecond}), "not started, transient", "timeout"},
		{"an attempt that is over while it dials", short(httpDialer("http://"+silent, net.Dialer{ControlContext: hang, Timeout: 300 * time.Millisecond})), "not started, transient", "timeout"},
		{"an attempt that is over within the TLS handshake", short(&HTTPTarget{URL: "https://" + silent}), "not started, transient", "timeout"},
		{"a TLS handshake that breaks off", &HTTPTarget{URL: "https://" + hangsUp}, "not started, transient", "reset"},
		{"a certificate that is not known", &HTTPTarget{URL: secure.URL}, "not started, permanent", "tls"},
		{"a provider without TLS", &HTTPTarget{URL: "https" + strings.TrimPrefix(plain.URL, "http")}, "not started, permanent", "tls"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := c.target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: "1", Payload: []byte("x")})
			if httpOutcome(err) != c.want || mulligan.ErrorType(err) != c.errType {
				t.Errorf("got %s of type %q (%v), want %s of type %q", httpOutcome(err), mulligan.ErrorType(err), err, c.want, c.errType)
			}
		})
	}
}

func TestHTTPCallThatWasPerhapsSentIsNotCalledNotStarted(t *testing.T) {
	t.Parallel()
	read := func(conn net.Conn) { // the request's first line, at least
		_, _ = conn.Read(make([]byte, 4096))
	}
	reset := func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0); _ = conn.Close() }
	for _, c := range []struct {
		name    string
		with    func(net.Conn)
		errType string
	}{
		{"a provider that never answers", httpSilent, "timeout"},
		{"a reset after the request", func(conn net.Conn) { read(conn); reset(conn) }, "reset"},
		{"an end after the request", read, "reset"},
		{"a broken status line", func(conn net.Conn) { read(conn); _, _ = io.WriteString(conn, "HTTP/1.1 2") }, "no_answer"},
		{"an answer that is not HTTP", func(conn net.Conn) { read(conn); _, _ = io.WriteString(conn, "hello\r\n\r\n") }, "no_answer"},
		{"a header that never ends", func(conn net.Conn) {
			read(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
			httpSilent(conn)
		}, "timeout"},
		{"a body that breaks off", func(conn net.Conn) {
			read(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
		}, "reset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			target := &HTTPTarget{URL: "http://" + httpPeer(t, c.with)}
			if c.errType == "timeout" {
				target.Timeout = 500 * time.Millisecond // the connection must stand by then
			}
			_, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: "1", Payload: []byte("x")})
			if httpOutcome(err) != "transient" || mulligan.ErrorType(err) != c.errType {
				t.Errorf("got %s of type %q (%v), want transient of type %q", httpOutcome(err), mulligan.ErrorType(err), err, c.errType)
			}
		})
	}
}

func TestHTTPCallOverTLSThatWasPerhapsSentIsNotCalledNotStarted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		http2      bool
		clientCert tls.ClientAuthType
		id         string
		timeout    time.Duration
		errType    string
	}{
		{"a reset", false, tls.NoClientCert, "reset", time.Minute, "reset"},
		{"no answer in time", false, tls.NoClientCert, "slow", time.Second, "timeout"},
		{"an aborted HTTP/2 stream", true, tls.NoClientCert, "abort", time.Minute, "no_answer"},
		{"no answer in time over HTTP/2", true, tls.NoClientCert, "slow", time.Second, "timeout"},
		// With TLS 1.3 the server says so only after the client has begun to write.
		{"a client's certificate that is missing", false, tls.RequireAnyClientCert, "fine", time.Minute, "no_answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				switch r.Header.Get("Mulligan-Id") {
				case "reset":
					conn, _, _ := w.(http.Hijacker).Hijack()
					_ = conn.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
					_ = conn.(*tls.Conn).NetConn().Close()
				case "abort":
					panic(http.ErrAbortHandler)
				case "slow":
					<-r.Context().Done()
				}
			}))
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.EnableHTTP2, s.TLS = c.http2, &tls.Config{ClientAuth: c.clientCert}
			s.StartTLS()
			t.Cleanup(s.Close)
			target := httpDialer(s.URL, net.Dialer{})
			target.transport.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig
			target.Timeout = c.timeout
			_, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: c.id, Payload: []byte("x")})
			if httpOutcome(err) != "transient" || mulligan.ErrorType(err) != c.errType {
				t.Errorf("got %s of type %q (%v), want transient of type %q", httpOutcome(err), mulligan.ErrorType(err), err, c.errType)
			}
		})
	}
}
