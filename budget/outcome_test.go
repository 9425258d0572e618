package budget_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

func TestWhatAHandlersErrorSaysOfItsDownstream(t *testing.T) {
	flaky := errors.New("flaky")
	for _, c := range []struct {
		name string
		err  error
		want budget.Outcome
	}{
		{"no error is a success", nil, budget.Outcome{Result: budget.Succeeded}},
		{"any error is a failure", flaky, budget.Outcome{Result: budget.Failed}},
		{"what certainly did not happen is a failure", mulligan.NotStarted(flaky), budget.Outcome{Result: budget.Failed}},
		{"no answer in time is a timeout", context.DeadlineExceeded, budget.Outcome{Result: budget.TimedOut}},
		{"a wish to wait is throttling", mulligan.After(3*time.Second, flaky), budget.Outcome{Result: budget.Throttled, Hint: 3 * time.Second}},
		{"throttling needs no hint", mulligan.After(0, flaky), budget.Outcome{Result: budget.Throttled}},
		{"a permanent failure is the caller's", mulligan.Permanent(flaky), budget.Outcome{Result: budget.CallersFault}},
		{"a permanent failure with a hint is the caller's", mulligan.Permanent(mulligan.After(time.Second, flaky)), budget.Outcome{Result: budget.CallersFault}},
		{"a wish for another payload is the caller's fault", mulligan.Changed(nil, flaky), budget.Outcome{Result: budget.CallersFault}},
		{"useless output came from a downstream that works", mulligan.Unusable(flaky), budget.Outcome{Result: budget.Succeeded}},
		{"a refused credential is one", mulligan.RefusedCredential(flaky), budget.Outcome{Result: budget.RefusedCredential}},
		{"a job's own credential is the caller's fault", mulligan.Permanent(mulligan.RefusedCredential(flaky)), budget.Outcome{Result: budget.CallersFault}},
		{"a snooze is the job's own affair", mulligan.Snooze(time.Minute), budget.Outcome{Result: budget.CallersFault}},
		{"a panic tells nothing", mulligan.Typed("panic", flaky), budget.Outcome{}},
		{"an interrupted call tells nothing", context.Canceled, budget.Outcome{}},
		{"a call that was never made tells nothing", &mulligan.CallError{Reason: mulligan.Expired, Ended: context.DeadlineExceeded}, budget.Outcome{}},
		{"a call that was never made tells nothing", &mulligan.CallError{Reason: mulligan.Expired, Ended: context.DeadlineExceeded}, budget.Outcome{}},
		{"a failed call was told of already, perhaps to another", &mulligan.CallError{Reason: mulligan.AttemptsExhausted, Attempts: 4, Err: mulligan.RefusedCredential(flaky)}, budget.Outcome{}},
		{"wherever it is wrapped", mulligan.Later(&mulligan.CallError{Reason: mulligan.Expired, Attempts: 4, Err: flaky, Ended: context.DeadlineExceeded}), budget.Outcome{}},
		{"the longest hint counts", errors.Join(mulligan.After(time.Second, flaky), mulligan.After(3*time.Second, flaky)), budget.Outcome{Result: budget.Throttled, Hint: 3 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := budget.OutcomeOf(c.err); got != c.want {
				t.Errorf("OutcomeOf(%v) = %+v, want %+v", c.err, got, c.want)
			}
		})
	}
}
