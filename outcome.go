package mulligan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"syscall"
	"time"
)

// PermanentError is a failure that no retry helps.
type PermanentError struct{ Err error }

// Permanent says that the job failed for good: it is spent at once.
func Permanent(err error) error { return &PermanentError{Err: err} }

// Error is the text of the failure.
func (e *PermanentError) Error() string { return text(e.Err, "permanent failure") }

// Unwrap returns the failure that was wrapped.
func (e *PermanentError) Unwrap() error { return e.Err }

// ThrottledError is a refusal for now.
type ThrottledError struct {
	Delay time.Duration // the downstream's hint; zero if it gave none
	Err   error
}

// After says that the downstream asked to wait at least d, as with a
// Retry-After header. A d of zero means throttled without a hint.
func After(d time.Duration, err error) error {
	return &ThrottledError{Delay: max(d, 0), Err: err}
}

// Error is the text of the failure.
func (e *ThrottledError) Error() string { return text(e.Err, "throttled") }

// Unwrap returns the failure that was wrapped.
func (e *ThrottledError) Unwrap() error { return e.Err }

// ChangedError is a failure after which another payload is worth a try.
type ChangedError struct {
	Payload []byte
	Err     error
}

// Changed says to try again, with this payload instead. It is for pure kinds
// and works twice per job at most; a payload that was tried before is not
// tried again.
func Changed(payload []byte, err error) error {
	return &ChangedError{Payload: payload, Err: err}
}

// Error is the text of the failure.
func (e *ChangedError) Error() string { return text(e.Err, "try again with a changed payload") }

// Unwrap returns the failure that was wrapped.
func (e *ChangedError) Unwrap() error { return e.Err }

// UnusableError is a failure of the output itself.
type UnusableError struct{ Err error }

// Unusable says that the call worked and its output is no good: the same input
// would give the same, so the job is spent at once.
func Unusable(err error) error { return &UnusableError{Err: err} }

// Error is the text of the failure.
func (e *UnusableError) Error() string { return text(e.Err, "unusable output") }

// Unwrap returns the failure that was wrapped.
func (e *UnusableError) Unwrap() error { return e.Err }

// SnoozeError is a wish to run later.
type SnoozeError struct{ Delay time.Duration }

// Snooze says to run the job again after d, at least a second, without counting
// an attempt; its deadline still holds.
func Snooze(d time.Duration) error { return &SnoozeError{Delay: max(d, 0)} }

// Error is the text of the failure.
func (e *SnoozeError) Error() string { return fmt.Sprintf("snoozed for %v", e.Delay) }

// NotStartedError is a failure before any effect.
type NotStartedError struct{ Err error }

// NotStarted says that the effect certainly did not happen.
func NotStarted(err error) error { return &NotStartedError{Err: err} }

// Error is the text of the failure.
func (e *NotStartedError) Error() string { return text(e.Err, "not started") }

// Unwrap returns the failure that was wrapped.
func (e *NotStartedError) Unwrap() error { return e.Err }

// CredentialError is a refusal of the credential that the call was made with.
type CredentialError struct{ Err error }

// RefusedCredential says that the downstream does not accept who we say we are,
// as with 401 and 407. No job is to blame: its downstream is held until a probe
// is accepted, and the job waits, without having used an attempt, at most until
// its deadline. Where the credential is the job's own, such as a user's, it is
// [Permanent] instead.
func RefusedCredential(err error) error { return &CredentialError{Err: err} }

// Error is the text of the failure.
func (e *CredentialError) Error() string { return text(e.Err, "credential refused") }

// Unwrap returns the failure that was wrapped.
func (e *CredentialError) Unwrap() error { return e.Err }

func text(err error, otherwise string) string {
	if err == nil {
		return otherwise
	}
	return err.Error()
}

type typedError struct {
	kind string
	err  error
}

func (e *typedError) Error() string { return text(e.err, e.kind) }
func (e *typedError) Unwrap() error { return e.err }

var errorType = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// Typed gives err a type for metrics, records and letters: a lower-case word
// such as card_declined, from a small fixed set. Any other word is ignored.
func Typed(errType string, err error) error {
	if !errorType.MatchString(errType) {
		return err
	}
	return &typedError{errType, err}
}

// ErrorType is the type of a failure: what [Typed] gave it, else timeout,
// canceled, refused, reset, dns or error. Of a [*CallError] it is that of the
// last attempt, and held if there was none for want of a budget.
func ErrorType(err error) string {
	if err == nil {
		return ""
	}
	if typed, ok := errors.AsType[*typedError](err); ok {
		return typed.kind
	}
	call, called := errors.AsType[*CallError](err)
	slow, _ := errors.AsType[net.Error](err)
	dns, _ := errors.AsType[*net.DNSError](err)
	switch {
	case called && call.Err != nil: // not of what ended the call
		return ErrorType(call.Err)
	case called && call.Reason == Held:
		return "held"
	case errors.Is(err, context.DeadlineExceeded), slow != nil && slow.Timeout():
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case dns != nil:
		return "dns"
	}
	return "error"
}
