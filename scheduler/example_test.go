package scheduler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// await reads events until one job has come that far.
func await(events *nats.Subscription, what string) error {
	for {
		m, err := events.NextMsg(10 * time.Second)
		if err != nil {
			return err
		}
		var e mulligan.Event
		if json.Unmarshal(m.Data, &e) == nil && e.Event == what {
			return nil
		}
	}
}

// A job is refused for good and ends as a dead letter. An operator reads it and
// replays it once the reason is mended.
func ExampleScheduler() {
	env, stop := natstest.Start()
	defer stop()
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer end()

	events, err := env.Conn.SubscribeSync(mulligan.Topology{}.EventsRoot() + ".>")
	if err != nil {
		fmt.Println(err)
		return
	}
	kind := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}
	worker := &consumer.Worker{Conn: env.Conn}
	worker.Handle(kind, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) {
		return nil, mulligan.Permanent(mulligan.Typed("no_such_user", errors.New("no such user")))
	}))
	sched := &scheduler.Scheduler{Conn: env.Conn}
	if err := sched.Topology.Ensure(ctx, env.JS); err != nil {
		fmt.Println(err)
		return
	}
	running.Go(func() { fmt.Print(report(sched.Run(ctx))) })
	running.Go(func() { fmt.Print(report(worker.Run(ctx))) })

	pub := &mulligan.Publisher{Conn: env.Conn, Kinds: []mulligan.Kind{kind}}
	if _, err := pub.Publish(ctx, mulligan.Job{Kind: "email.send", ID: "order-42", Payload: []byte("Shipped")}); err != nil {
		fmt.Println(err)
		return
	}
	if err := await(events, mulligan.EventDead); err != nil {
		fmt.Println(err)
		return
	}
	letters, err := sched.Letters(ctx, scheduler.Query{Kind: "email.send", Reason: mulligan.PermanentFailure})
	for _, l := range letters {
		fmt.Println(l.ID, l.Reason, l.ErrorType, l.Attempts, string(l.Payload), err)
	}
	// Output: order-42 permanent no_such_user 1 Shipped <nil>
}

// report is the line of an error, if it is one.
func report(err error) string {
	if err == nil {
		return ""
	}
	return err.Error() + "\n"
}

func ExampleScheduler_Replay() {
	env, stop := natstest.Start()
	defer stop()
	ctx := context.Background()
	sched := &scheduler.Scheduler{Conn: env.Conn}
	if err := sched.Topology.Ensure(ctx, env.JS); err != nil {
		fmt.Println(err)
		return
	}
	letter := mulligan.Letter{Envelope: job("order-42", []byte("Shipped")), Reason: mulligan.AttemptsExhausted, Attempts: 4}
	if _, err := env.JS.PublishMsg(ctx, letter.Message("mulligan.dead.email.send.order-42")); err != nil {
		fmt.Println(err)
		return
	}
	l, err := sched.Letter(ctx, "email.send", "order-42")
	fmt.Println(l.ID, "died after", l.Attempts, "attempts,", err)
	replayed, err := sched.Replay(ctx, "email.send", "order-42")
	fmt.Println("stored again as job", replayed.Seq, err)
	_, err = sched.Letter(ctx, "email.send", "order-42")
	fmt.Println(err)
	// Output:
	// order-42 died after 4 attempts, <nil>
	// stored again as job 1 <nil>
	// mulligan: not found: no dead letter of email.send "order-42"
}
