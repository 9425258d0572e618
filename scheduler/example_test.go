package scheduler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/dedupe"
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

// doubted is a scheduler and a dead once job of which nobody knows whether its
// mail went out.
func doubted() (sched *scheduler.Scheduler, stop func()) {
	env, stop := natstest.Start()
	ctx := context.Background()
	sched = &scheduler.Scheduler{Conn: env.Conn}
	if err := sched.Topology.Ensure(ctx, env.JS); err != nil {
		log.Fatal(err)
	}
	e := job("order-42", []byte("Shipped"))
	letter := mulligan.Letter{Envelope: e, Reason: mulligan.InDoubt, Attempts: 1}
	if _, err := env.JS.PublishMsg(ctx, letter.Message("mulligan.dead.email.send.order-42")); err != nil {
		log.Fatal(err)
	}
	ledger, err := dedupe.Open(ctx, env.JS, sched.Topology)
	if err != nil {
		log.Fatal(err)
	}
	err = ledger.Update(ctx, "example", e.RecordKey(), func(r *mulligan.Record) bool {
		*r = mulligan.Record{State: mulligan.Dead, Effect: mulligan.Once, Payload: e.Fingerprint(), Reason: mulligan.InDoubt, Attempts: 1, Steps: []mulligan.StepRecord{{Name: "mail", Run: "r"}}}
		return true
	})
	if err != nil {
		log.Fatal(err)
	}
	return sched, stop
}

func ExampleScheduler_ResolveDone() {
	sched, stop := doubted()
	defer stop()
	ctx := context.Background()
	_, err := sched.Replay(ctx, "email.send", "order-42")
	fmt.Println(errors.Is(err, mulligan.ErrInDoubt))
	// Somebody has looked into the mail server's log: it is there.
	fmt.Println(sched.ResolveDone(ctx, "email.send", "order-42", []byte("250 queued as 7F2")))
	// Output:
	// true
	// <nil>
}

func ExampleScheduler_ResolveNotDone() {
	sched, stop := doubted()
	defer stop()
	// Somebody has looked into the mail server's log: it is not there.
	replayed, err := sched.ResolveNotDone(context.Background(), "email.send", "order-42")
	fmt.Println("stored again as job", replayed.Seq, err)
	// Output: stored again as job 1 <nil>
}

func ExampleScheduler_ResolveStepDone() {
	sched, stop := doubted()
	defer stop()
	// The mail is out, and what follows it is still to be done.
	replayed, err := sched.ResolveStepDone(context.Background(), "email.send", "order-42", scheduler.StepDone{Name: "mail", Result: []byte(`"7F2"`)})
	fmt.Println("stored again as job", replayed.Seq, err)
	// Output: stored again as job 1 <nil>
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
