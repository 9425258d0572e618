package consumer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/mulligan-queue/mulligan"
)

// httpWire notes whether a request was given a connection. Until then none of
// it was sent: the other side was not found, not reached, or failed the TLS
// handshake. From then on it may have arrived, whatever the error says.
type httpWire struct{ given atomic.Bool }

// watch returns the context for the request's one round trip.
func (w *httpWire) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { w.given.Store(true) },
	})
}

// failed is the error of a round trip that brought no answer.
func (w *httpWire) failed(err error) error {
	if w.given.Load() {
		return err
	}
	return mulligan.NotStarted(err)
}

// httpNoAnswer says what a call without an answer means: it is tried again,
// unless the two cannot speak TLS with each other.
func httpNoAnswer(ctx context.Context, host string, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	kind := httpErrorType(err)
	err = mulligan.Typed(kind, fmt.Errorf("post to %s: %w", host, err))
	if kind == "tls" {
		return mulligan.Permanent(err)
	}
	return err
}

func httpErrorType(err error) string {
	var (
		certificate *tls.CertificateVerificationError
		alert       tls.AlertError
		record      tls.RecordHeaderError
		dns         *net.DNSError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return mulligan.ErrorType(err)
	case errors.As(err, &certificate), errors.As(err, &alert), errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "tls"
	case errors.As(err, &dns):
		return "dns"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		strings.HasSuffix(err.Error(), "server closed idle connection"): // net/http has no value for it
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	}
	if kind := mulligan.ErrorType(err); kind != "error" {
		return kind
	}
	return "no_answer"
}
