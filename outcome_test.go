package mulligan_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func TestErrorType(t *testing.T) {
	flaky := errors.New("flaky")
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"success has no type", nil, ""},
		{"any error is an error", flaky, "error"},
		{"a typed error has its type", mulligan.Typed("card_declined", flaky), "card_declined"},
		{"a type is found under an outcome", mulligan.Permanent(mulligan.Typed("card_declined", flaky)), "card_declined"},
		{"a type is found under a wrapping", fmt.Errorf("pay: %w", mulligan.Typed("card_declined", flaky)), "card_declined"},
		{"the outer of two types counts", mulligan.Typed("outer", mulligan.Typed("inner", flaky)), "outer"},
		{"a type wins over a timeout", mulligan.Typed("slow_bank", context.DeadlineExceeded), "slow_bank"},
		{"a type that is no lower-case word is ignored", mulligan.Typed("Card Declined", flaky), "error"},
		{"a type with an ID in it is ignored when it is long", mulligan.Typed(strings.Repeat("a", 41), flaky), "error"},
		{"a deadline is a timeout", fmt.Errorf("call: %w", context.DeadlineExceeded), "timeout"},
		{"a timeout of the network is a timeout", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "timeout"},
		{"a slow name server is a timeout", &net.DNSError{IsTimeout: true}, "timeout"},
		{"a cancelled call is canceled", context.Canceled, "canceled"},
		{"nobody listens", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "refused"},
		{"a reset", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, "reset"},
		{"a broken pipe is a reset", &net.OpError{Op: "write", Err: syscall.EPIPE}, "reset"},
		{"an unknown host", &net.DNSError{IsNotFound: true}, "dns"},
		{"an end of file is an error", io.ErrUnexpectedEOF, "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := mulligan.ErrorType(tt.err); got != tt.want {
				t.Errorf("ErrorType(%v) = %q, want %q", tt.err, got, tt.want)
			}
		})
	}
}

func TestOutcomesWrapTheirError(t *testing.T) {
	flaky := errors.New("flaky")
	for name, wrap := range map[string]func(error) error{
		"permanent":   mulligan.Permanent,
		"after":       func(err error) error { return mulligan.After(time.Second, err) },
		"changed":     func(err error) error { return mulligan.Changed(nil, err) },
		"unusable":    mulligan.Unusable,
		"not started": mulligan.NotStarted,
		"typed":       func(err error) error { return mulligan.Typed("t", err) },
	} {
		if err := wrap(flaky); !errors.Is(err, flaky) || err.Error() != "flaky" {
			t.Errorf("%s of flaky is %v", name, err)
		}
		if err := wrap(nil); err == nil || err.Error() == "" {
			t.Errorf("%s of no error is %v, want an error that says what it is", name, err)
		}
	}
}

func TestOutcomesCarryWhatTheySay(t *testing.T) {
	var throttled *mulligan.ThrottledError
	if err := fmt.Errorf("call: %w", mulligan.After(3*time.Second, nil)); !errors.As(err, &throttled) || throttled.Delay != 3*time.Second {
		t.Errorf("After(3s) carries %+v", throttled)
	}
	if err := mulligan.After(-time.Second, nil); !errors.As(err, &throttled) || throttled.Delay != 0 {
		t.Errorf("After(-1s) carries %+v, want no hint", throttled)
	}
	var snooze *mulligan.SnoozeError
	if err := mulligan.Snooze(-time.Second); !errors.As(err, &snooze) || snooze.Delay != 0 {
		t.Errorf("Snooze(-1s) carries %+v, want no delay", snooze)
	}
	var changed *mulligan.ChangedError
	if err := mulligan.Changed([]byte("shorter"), nil); !errors.As(err, &changed) || string(changed.Payload) != "shorter" {
		t.Errorf("Changed(shorter) carries %+v", changed)
	}
}

func TestJSON(t *testing.T) {
	type args struct{ To string }
	flaky := errors.New("flaky")
	h := mulligan.JSON(func(_ context.Context, job *mulligan.Job, a args) (any, error) {
		switch a.To {
		case "nobody":
			return nil, flaky
		case "channel":
			return make(chan int), nil
		}
		return a.To + " " + job.ID, nil
	})
	for _, tt := range []struct {
		name, payload, result string
		permanent             string // the error's type
		err                   error
	}{
		{"the arguments are decoded and the result is encoded", `{"To":"ann"}`, `"ann 7"`, "", nil},
		{"the handler's error comes through", `{"To":"nobody"}`, "", "", flaky},
		{"a payload that does not decode never will", `{"To":`, "", "bad_payload", nil},
		{"an empty payload does not decode", "", "", "bad_payload", nil},
		{"arguments of another type do not decode", `{"To":7}`, "", "bad_payload", nil},
		{"a result that does not encode never will", `{"To":"channel"}`, "", "bad_result", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := h.Handle(t.Context(), &mulligan.Job{ID: "7", Payload: []byte(tt.payload)})
			var permanent *mulligan.PermanentError
			switch {
			case tt.permanent != "":
				if !errors.As(err, &permanent) || mulligan.ErrorType(err) != tt.permanent {
					t.Errorf("payload %s: got %v of type %s, want a permanent %s", tt.payload, err, mulligan.ErrorType(err), tt.permanent)
				}
			case !errors.Is(err, tt.err) || errors.As(err, &permanent) || string(got) != tt.result:
				t.Errorf("payload %s: got %s, %v; want %s, %v", tt.payload, got, err, tt.result, tt.err)
			}
		})
	}
}
