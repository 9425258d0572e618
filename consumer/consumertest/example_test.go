package consumertest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

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

type printer struct{ testing.TB }

func (*printer) Helper()                  {}
func (*printer) Context() context.Context { return context.Background() }
func (*printer) Fatal(args ...any)        { fmt.Println(args...) }
