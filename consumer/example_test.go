package consumer_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func ExampleWorker_Run() {
	env, stop := natstest.Start()
	defer stop()
	type email struct{ To, Text string }
	send := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}

	ctx, end := context.WithCancel(context.Background())
	worker := &consumer.Worker{Conn: env.Conn}
	worker.Handle(send, mulligan.JSON(func(_ context.Context, job *mulligan.Job, e email) (string, error) {
		fmt.Println("attempt", job.Attempt, "of", job.AttemptsMax, "to", e.To, "with key", job.Key())
		if job.Attempt == 1 {
			return "", errors.New("connection lost")
		}
		end() // one job is enough here
		return "sent", nil
	}))
	if err := worker.Topology.Ensure(ctx, env.JS); err != nil {
		fmt.Println(err)
		return
	}
	pub := &mulligan.Publisher{Conn: env.Conn, Kinds: []mulligan.Kind{send}}
	job := mulligan.Job{Kind: "email.send", ID: "order-42", Payload: []byte(`{"To":"ada@example.org","Text":"Shipped"}`)}
	if _, err := pub.Publish(ctx, job); err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println("the worker ended:", worker.Run(ctx))
	status, err := pub.Status(context.Background(), "email.send", "order-42")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s after %d attempts, with %s\n", status.State, status.Record.Attempts, status.Record.Result.Data)
	// Output:
	// attempt 1 of 4 to ada@example.org with key email.send/order-42
	// attempt 2 of 4 to ada@example.org with key email.send/order-42
	// the worker ended: <nil>
	// done after 2 attempts, with "sent"
}

// A declaration that cannot work is an error before any job runs.
func ExampleWorker_Handle() {
	env, stop := natstest.Start()
	defer stop()
	worker := &consumer.Worker{Conn: env.Conn}
	worker.Handle(mulligan.Kind{Name: "email.send"}, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) {
		return nil, nil
	}))
	err := worker.Run(context.Background())
	fmt.Println(errors.Is(err, mulligan.ErrBadKind))
	// Output: true
}

func ExampleRehearse() {
	kind := mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}
	handler := mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		switch string(job.Payload) {
		case "busy":
			return nil, errors.New("try later")
		case "nonsense":
			return nil, mulligan.Permanent(errors.New("no such model"))
		}
		return []byte("answer"), nil
	})
	for _, job := range []mulligan.Job{
		{Payload: []byte("question")},
		{Payload: []byte("busy")},
		{Payload: []byte("busy"), Attempt: 3},
		{Payload: []byte("busy"), Attempt: 4},
		{Payload: []byte("nonsense")},
	} {
		r, err := consumer.Rehearse(context.Background(), kind, handler, job)
		fmt.Printf("%s: %s %s %v, result %q, %v\n", job.Payload, r.Verb, r.Reason, r.Delay, r.Result, err)
	}
	// Output:
	// question: ack  0s, result "answer", <nil>
	// busy: retry  100ms, result "", <nil>
	// busy: retry  400ms, result "", <nil>
	// busy: spend attempts_exhausted 0s, result "", <nil>
	// nonsense: spend permanent 0s, result "", <nil>
}
