package consumertest_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/consumer/consumertest"
)

var errFlaky = errors.New("flaky")

func answering(result string, err error) mulligan.Handler {
	return mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { return []byte(result), err })
}

func TestAHandlerIsJudgedAsByAWorker(t *testing.T) {
	pure := mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}
	keyed := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}
	for _, tt := range []struct {
		name    string
		kind    mulligan.Kind
		err     error
		attempt int
		want    consumer.Rehearsal
	}{
		{"a job without an error is done", keyed, nil, 1, consumer.Rehearsal{Verb: "ack"}},
		{"a flaky job is tried again after the policy's delay", keyed, errFlaky, 1, consumer.Rehearsal{Verb: "retry", Delay: 100 * time.Millisecond, ErrorType: "error"}},
		{"each further delay is twice as long", keyed, errFlaky, 3, consumer.Rehearsal{Verb: "retry", Delay: 400 * time.Millisecond, ErrorType: "error"}},
		{"the last attempt is spent", keyed, errFlaky, 4, consumer.Rehearsal{Verb: "spend", Reason: mulligan.AttemptsExhausted, ErrorType: "error"}},
		{"a permanent failure is spent at once", keyed, mulligan.Permanent(errFlaky), 1, consumer.Rehearsal{Verb: "spend", Reason: mulligan.PermanentFailure, ErrorType: "error"}},
		{"an unusable output is spent at once", pure, mulligan.Unusable(errFlaky), 1, consumer.Rehearsal{Verb: "spend", Reason: mulligan.NoChange, ErrorType: "error"}},
		{"a snoozed job is deferred, at the last attempt too", pure, mulligan.Snooze(time.Minute), 4,
			consumer.Rehearsal{Verb: "defer", Reason: mulligan.Snoozed, Delay: time.Minute, ErrorType: "error"}},
		{"a hint past the total time is spent", pure, mulligan.After(time.Minute, errFlaky), 1, consumer.Rehearsal{Verb: "spend", Reason: mulligan.TimeExhausted, ErrorType: "error"}},
		{"a changed payload is for the next attempt", pure, mulligan.Changed([]byte("shorter"), errFlaky), 1,
			consumer.Rehearsal{Verb: "retry", Delay: 100 * time.Millisecond, Changed: []byte("shorter"), ErrorType: "error"}},
		{"a changed payload is not for a side effect that may have happened", keyed, mulligan.Changed([]byte("shorter"), errFlaky), 1,
			consumer.Rehearsal{Verb: "spend", Reason: mulligan.PermanentFailure, ErrorType: "error"}},
		{"an error has its type", pure, mulligan.Typed("card_declined", errFlaky), 4, consumer.Rehearsal{Verb: "spend", Reason: mulligan.AttemptsExhausted, ErrorType: "card_declined"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := mulligan.Job{ID: "order-42", Payload: []byte("long"), Attempt: tt.attempt}
			got := consumertest.Run(t, tt.kind, answering("result", tt.err), job)
			if !errors.Is(got.Err, tt.err) || string(got.Result) != "result" {
				t.Errorf("got %q, %v; want what the handler returned", got.Result, got.Err)
			}
			if got.Verb != tt.want.Verb || got.Reason != tt.want.Reason || got.Delay != tt.want.Delay || string(got.Changed) != string(tt.want.Changed) || got.ErrorType != tt.want.ErrorType {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestAHandlerIsGivenTheJobAsByAWorker(t *testing.T) {
	kind := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Policy: mulligan.Policy{Attempts: 7, Timeout: time.Minute}}
	consumertest.Run(t, kind, mulligan.HandlerFunc(func(ctx context.Context, job *mulligan.Job) ([]byte, error) {
		if job.Kind != kind.Name || job.Attempt != 1 || job.AttemptsMax != 7 || job.Key() != "email.send/order-42" {
			t.Errorf("it was given %+v", job)
		}
		if end, ok := ctx.Deadline(); !ok || time.Until(end) > time.Minute {
			t.Errorf("its time ends at %v, want within the policy's timeout", end)
		}
		return nil, nil
	}), mulligan.Job{ID: "order-42"})
}

func TestAPanicIsAFailedAttemptHereToo(t *testing.T) {
	kind := mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}
	got := consumertest.Run(t, kind, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { panic("nil map") }), mulligan.Job{})
	if got.Verb != "retry" || got.ErrorType != "panic" || !strings.Contains(got.Err.Error(), "nil map") {
		t.Errorf("got %+v, want a retry after a panic", got)
	}
}

// A spy is a test whose end another test looks at.
type spy struct {
	testing.TB
	fatal []any
}

func (s *spy) Helper() {}
func (s *spy) Fatal(args ...any) {
	s.fatal = args
	runtime.Goexit()
}

func TestAJobThatCouldNotBePublishedFailsTheTest(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind mulligan.Kind
		job  mulligan.Job
		want error
	}{
		{"a side effect without an ID", mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}, mulligan.Job{}, mulligan.ErrNoKey},
		{"a kind without an effect", mulligan.Kind{Name: "email.send"}, mulligan.Job{ID: "x"}, mulligan.ErrBadKind},
		{"a kind with a bad name", mulligan.Kind{Name: "email send", Effect: mulligan.Pure}, mulligan.Job{ID: "x"}, mulligan.ErrBadKind},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &spy{TB: t}
			var done sync.WaitGroup
			done.Go(func() {
				consumertest.Run(s, tt.kind, answering("", nil), tt.job)
				t.Error("the test went on")
			})
			done.Wait()
			if len(s.fatal) != 1 {
				t.Fatalf("the test was told %v", s.fatal)
			}
			if err, ok := s.fatal[0].(error); !ok || !errors.Is(err, tt.want) {
				t.Errorf("the test was told %v, want %v", s.fatal[0], tt.want)
			}
		})
	}
}
