package consumertest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer/consumertest"
)

// A busyMailer stands for the handler under test.
func busyMailer(_ context.Context, job *mulligan.Job) ([]byte, error) {
	if job.Attempt == 1 {
		return nil, mulligan.After(0, errors.New("mailer busy"))
	}
	return []byte("sent"), nil
}

func ExampleRun() {
	// In a test of your own this is its t.
	t := &printer{}

	kind := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}
	first := consumertest.Run(t, kind, mulligan.HandlerFunc(busyMailer), mulligan.Job{ID: "order-42"})
	fmt.Println(first.Verb, "after", first.Err)
	second := consumertest.Run(t, kind, mulligan.HandlerFunc(busyMailer), mulligan.Job{ID: "order-42", Attempt: 2})
	fmt.Println(second.Verb, string(second.Result))
	// Output:
	// retry after mailer busy
	// ack sent
}

// Two attempts of a job in steps: the second finds the first step done.
func ExampleRun_steps() {
	t := &printer{} // in a test of your own this is its t

	kind := mulligan.Kind{Name: "order.confirm", Effect: mulligan.Once}
	handler := mulligan.HandlerFunc(func(ctx context.Context, job *mulligan.Job) ([]byte, error) {
		receipt, err := mulligan.Step(ctx, job, "charge", func(context.Context) (string, error) {
			fmt.Println("charge under the key", job.StepKey("charge"))
			return "r-1", nil
		})
		if err == nil && job.Attempt == 1 {
			err = errors.New("the disk is full")
		}
		return []byte(receipt), err
	})
	first := consumertest.Run(t, kind, handler, mulligan.Job{ID: "order-42"})
	fmt.Println(first.Verb, "after", first.Err)
	second := consumertest.Run(t, kind, handler, mulligan.Job{ID: "order-42", Attempt: 2, Steps: first.Steps})
	fmt.Println(second.Verb, string(second.Result))
	// Output:
	// charge under the key order.confirm/order-42/charge
	// retry after the disk is full
	// ack r-1
}

// A handler that calls a provider by a policy of its own, and hands over to the
// queue what that could not do.
func ExampleRun_later() {
	t := &printer{} // in a test of your own this is its t

	kind := mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure, Policy: mulligan.DurablePolicy()}
	handler := func(hand func(error) error) mulligan.Handler {
		return mulligan.HandlerFunc(func(ctx context.Context, job *mulligan.Job) ([]byte, error) {
			err := mulligan.Policy{Attempts: 2, FirstDelay: time.Millisecond}.Do(ctx, func(context.Context) error {
				return errors.New("overloaded")
			})
			return nil, hand(err)
		})
	}
	later := consumertest.Run(t, kind, handler(mulligan.Later), mulligan.Job{})
	fmt.Println(later.Verb, "after", later.Tries, "tries and", later.Delay)
	ended := consumertest.Run(t, kind, handler(func(err error) error { return err }), mulligan.Job{})
	fmt.Println(ended.Verb, ended.Reason)
	// Output:
	// retry after 2 tries and 200ms
	// spend attempts_exhausted
}

type printer struct{ testing.TB }

func (*printer) Helper()                  {}
func (*printer) Context() context.Context { return context.Background() }
func (*printer) Fatal(args ...any)        { fmt.Println(args...) }
