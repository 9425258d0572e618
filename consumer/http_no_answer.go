package consumer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/mulligan-queue/mulligan"
)

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
