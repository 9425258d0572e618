// Package api is Mulligan over HTTP: publishing a job, asking what became of
// it, and what a load balancer and a metrics collector want to know.
//
//	POST /v1/jobs/{kind}        publish; the body is the payload
//	GET  /v1/jobs/{kind}/{id}   where the job is now, see [JobView]; with
//	                            ?wait=10s once it has ended or that time is up
//	GET  /healthz               the process lives
//	GET  /readyz                it can take jobs
//	GET  /metrics               for Prometheus
//
// An answer that is not a success is a problem in the sense of RFC 9457.
package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
)

// A Server answers HTTP requests about jobs. Set its fields before the first
// call; it is safe for concurrent use.
type Server struct {
	// Publisher stores the jobs; nil serves the probes and the metrics only.
	Publisher *mulligan.Publisher
	// Conn is required: the connection that is published on.
	Conn *nats.Conn
	// Token must be sent as a bearer token to see or publish jobs and to read
	// metrics; empty asks for none.
	Token string
	// Gatherer has the metrics to show; nil shows none.
	Gatherer prometheus.Gatherer
	// Ready reports why no jobs should be sent here yet, besides a lost
	// connection; nil is always ready. Whoever can reach the server is shown the
	// text of its error.
	Ready func(context.Context) error
	// ReadTimeout is how long a request may take to arrive, its body included;
	// zero is 30 s.
	ReadTimeout time.Duration
	// AnswerTimeout is how long NATS may take to answer for one request; zero is
	// 10 s.
	AnswerTimeout time.Duration
	// MaxConnections is how many connections may be open at once. Whoever comes then
	// takes the place of the one that has been without a request for the longest, or
	// waits until one is. Zero is 4,096.
	MaxConnections int
	// MaxRequests is how many requests may ask NATS at once; others wait for
	// half a second, and are told to come back. Zero is 64.
	MaxRequests int
	// MaxWaiting is how many requests may wait for the end of a job at once; zero
	// is 1,000.
	MaxWaiting int
	Log        zerolog.Logger

	trouble zerolog.Logger // for what strangers can cause: a few lines a second
}

const (
	defaultReadTimeout   = 30 * time.Second
	defaultAnswerTimeout = 10 * time.Second
	idleTimeout          = time.Minute
	readyTimeout         = 2 * time.Second
	shutdownTimeout      = 5 * time.Second
	troubleLines         = 10 // of the log, per second
)

// Handler returns the handler of every path.
func (s *Server) Handler() http.Handler { return s.handler(nil) }

// handler is Handler for a server that lets nobody wait once closing is closed.
func (s *Server) handler(closing <-chan struct{}) http.Handler {
	s.trouble = s.Log.Sample(&zerolog.BurstSampler{Burst: troubleLines, Period: time.Second})
	room := s.rooms(closing)
	private := http.NewServeMux()
	if s.Publisher != nil {
		s.route(private, "POST", "/v1/jobs/{kind}", s.publish(room))
		s.route(private, "GET", "/v1/jobs/{kind}/{id}", s.job(room))
	}
	if s.Gatherer != nil {
		o := promhttp.HandlerOpts{MaxRequestsInFlight: maxCollectors}
		s.route(private, "GET", "/metrics", promhttp.HandlerFor(s.Gatherer, o).ServeHTTP)
	}
	private.HandleFunc("/", s.noSuchPath)

	m := http.NewServeMux()
	s.route(m, "GET", "/healthz", s.healthz)
	s.route(m, "GET", "/readyz", s.readyz(room))
	for _, prefix := range []string{"/v1", "/v1/", "/metrics"} {
		m.Handle(prefix, s.guarded(private))
	}
	m.HandleFunc("/", s.noSuchPath)
	return s.checked(m)
}

// route serves a path by one method, and refuses every other.
func (s *Server) route(m *http.ServeMux, method, pattern string, h http.HandlerFunc) {
	allow := method
	if method == http.MethodGet { // its pattern matches HEAD too
		allow += ", " + http.MethodHead
	}
	m.HandleFunc(method+" "+pattern, h)
	m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		s.refuse(w, r, &problem{Type: "method-not-allowed", Status: http.StatusMethodNotAllowed,
			Detail: fmt.Sprintf("%.20s is not possible here; there is %s", r.Method, allow)})
	})
}

// checked refuses what no path wants to see.
func (s *Server) checked(next http.Handler) http.Handler {
	var origin http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if p := oversized(r); p != nil {
			s.refuse(w, r, p)
			return
		}
		// A page in a browser can reach a server on loopback, too.
		if origin.Check(r) != nil {
			s.refuse(w, r, &problem{Type: "cross-origin", Status: http.StatusForbidden,
				Detail: "a page of another origin may not publish jobs"})
			return
		}
		// The mux would redirect to a tidier path, which may be another job's.
		if p := r.URL.EscapedPath(); p != path.Clean(p) {
			s.noSuchPath(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guarded lets those through who have the token.
func (s *Server) guarded(next http.Handler) http.Handler {
	if s.Token == "" {
		return next
	}
	want := sha256.Sum256([]byte(s.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		// Sums have one length, so that the comparison says nothing about the token's.
		have := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(have[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="mulligan"`)
			s.refuse(w, r, &problem{Type: "unauthorized", Status: http.StatusUnauthorized,
				Detail: "send the server's token in the header Authorization: Bearer <token>"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) noSuchPath(w http.ResponseWriter, r *http.Request) {
	s.refuse(w, r, &problem{Type: "no-such-path", Status: http.StatusNotFound,
		Detail: "there is nothing here; escape what an ID in the path may not have, a slash as %2F"})
}

// Serve answers requests on l until ctx is done, then takes no more, lets those
// in hand finish for a few seconds and closes every connection.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, s.handler(ctx.Done()))
}

// Wait is Serve for a process that waits for NATS before it begins: it lives, and all
// else is to come back. Afterwards l is still open.
func (s *Server) Wait(ctx context.Context, l *net.TCPListener) error {
	defer func() { _ = l.SetDeadline(time.Time{}) }() // fails if it is closed, which who serves next will see
	return s.serve(ctx, lent{l}, s.waiting())
}

// lent is a listener that is not closed, but lets go of who accepts.
type lent struct{ *net.TCPListener }

func (l lent) Close() error { return l.SetDeadline(time.Now()) }

func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	read := orDefault(s.ReadTimeout, defaultReadTimeout)
	srv := &http.Server{
		Handler: h, ReadTimeout: read,
		// Counted from the header's end: the body, a place, NATS, and a slow reader.
		// Who waits for a job gets more.
		WriteTimeout: read + maxQueue + 2*s.answerTimeout(),
		IdleTimeout:  idleTimeout, MaxHeaderBytes: maxHeadBytes, ErrorLog: stdlog.New(s.trouble, "", 0),
	}
	open := limited(l, orDefault(s.MaxConnections, defaultConnections))
	srv.ConnState = open.note
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(open) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		s.Log.Warn().Err(err).Msg("HTTP requests were cut off at shutdown")
		_ = srv.Close()
	}
	<-ended
	return nil
}

func (s *Server) answerTimeout() time.Duration {
	return orDefault(s.AnswerTimeout, defaultAnswerTimeout)
}
