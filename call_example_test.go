package mulligan_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func ExamplePolicy_Do() {
	tries := 0
	err := mulligan.Policy{FirstDelay: time.Millisecond}.Do(context.Background(), func(ctx context.Context) error {
		if tries++; tries < 3 {
			return errors.New("connection reset")
		}
		return nil
	})
	fmt.Println(tries, err)

	err = mulligan.Policy{}.Do(context.Background(), func(ctx context.Context) error {
		return mulligan.Permanent(errors.New("no such model"))
	})
	var failed *mulligan.CallError
	fmt.Println(errors.As(err, &failed), failed.Reason, failed.Attempts)
	fmt.Println(err)
	// Output:
	// 3 <nil>
	// true permanent 1
	// no such model (permanent, attempts: 1)
}

// Both what the call met and what ended it are found in its error.
func ExamplePolicy_Do_deadline() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := mulligan.Policy{}.Do(ctx, func(ctx context.Context) error {
		return mulligan.After(5*time.Second, errors.New("too many requests")) // past the deadline: no use waiting
	})
	var throttled *mulligan.ThrottledError
	fmt.Println(errors.Is(err, context.DeadlineExceeded), errors.As(err, &throttled), throttled.Delay)
	// Output: true true 5s
}

func ExampleCall() {
	answer, err := mulligan.Call(context.Background(), mulligan.Policy{}, func(ctx context.Context) (string, error) {
		return "42", nil
	})
	fmt.Println(answer, err)
	// Output: 42 <nil>
}

// The handler tries for two seconds; then the job goes back to the queue, and
// its kind's policy goes on for two minutes.
func ExampleLater() {
	kind, err := mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure, Policy: mulligan.DurablePolicy()}.Normal()
	if err != nil {
		fmt.Println(err)
		return
	}
	busy := func(ctx context.Context) (string, error) {
		return "", mulligan.After(30*time.Second, errors.New("overloaded"))
	}
	h := mulligan.HandlerFunc(func(ctx context.Context, job *mulligan.Job) ([]byte, error) {
		answer, err := mulligan.Call(ctx, mulligan.Policy{Total: 2 * time.Second}, busy)
		if err != nil {
			return nil, mulligan.Later(err)
		}
		return []byte(answer), nil
	})
	_, err = h.Handle(context.Background(), &mulligan.Job{})
	v := kind.Policy.Judge(mulligan.Ended{Number: 1}, err, mulligan.Chance{})
	fmt.Println(v.Verb, v.Delay.Round(time.Second))
	v = kind.Policy.Judge(mulligan.Ended{Number: 1}, errors.Unwrap(err), mulligan.Chance{}) // without Later
	fmt.Println(v.Verb, v.Reason)
	// Output:
	// retry 30s
	// spend time_exhausted
}

func ExampleMeaningOf() {
	err := errors.Join(
		mulligan.NotStarted(errors.New("the first provider is not reached")),
		mulligan.After(time.Minute, errors.New("the second asks to wait")),
	)
	m := mulligan.MeaningOf(err)
	fmt.Println(m.NotStarted, m.Throttled, m.Hint)
	// Output: false true 1m0s
}
