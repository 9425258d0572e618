package mulligan_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func ExampleKind() {
	kind, err := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Downstream: "mailer"}.Normal()
	fmt.Println(kind.Name, kind.Effect, kind.Downstream, kind.Policy.Attempts, err)

	_, err = mulligan.Kind{Name: "email.send"}.Normal()
	fmt.Println(err)
	// Output:
	// email.send keyed mailer 4 <nil>
	// mulligan: bad kind: kind email.send has no effect; say what running it twice would do: pure, keyed or once
}

func ExamplePolicy() {
	p, err := mulligan.Policy{Attempts: 3, Total: time.Minute}.Normal()
	fmt.Println(p.Attempts, p.Total, p.FirstDelay, p.MaxDelay, err)

	_, err = mulligan.Policy{Attempts: -1}.Normal()
	fmt.Println(err)
	// Output:
	// 3 1m0s 100ms 10s <nil>
	// policy attempts -1 is not between 1 and 100
}

func ExamplePolicy_Delay() {
	p := mulligan.DefaultPolicy()
	for n := 1; n <= 3; n++ {
		fmt.Println(p.Delay(n, 0), p.Delay(n, 0.5))
	}
	// Output:
	// 50ms 100ms
	// 100ms 200ms
	// 200ms 400ms
}

func ExamplePolicy_ThrottledDelay() {
	p := mulligan.DefaultPolicy()
	fmt.Println(p.ThrottledDelay(1, 0, 0.5, 0))
	fmt.Println(p.ThrottledDelay(1, 30*time.Second, 0.5, 0.5))
	// Output:
	// 1s
	// 31.5s
}

func ExampleNamedPolicy() {
	p, err := mulligan.NamedPolicy("durable")
	fmt.Println(p.Attempts, p.Total, err)
	// Output: 8 2m0s <nil>
}

func ExampleJob_Key() {
	job := mulligan.Job{Kind: "email.send", ID: "order-7"}
	fmt.Println(job.Key())
	// Output: email.send/order-7
}

func ExampleToken() {
	token := mulligan.Token("order 7")
	id, err := mulligan.ParseToken(token)
	fmt.Println(token, id, err)
	// Output: =b3JkZXIgNw order 7 <nil>
}

func ExampleHandlerFunc() {
	h := mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		return []byte(strings.ToUpper(string(job.Payload))), nil
	})
	result, err := h.Handle(context.Background(), &mulligan.Job{Payload: []byte("hello")})
	fmt.Println(string(result), err)
	// Output: HELLO <nil>
}

func ExampleJSON() {
	type email struct{ To, Text string }
	type sent struct {
		ID string `json:"id"`
	}
	h := mulligan.JSON(func(_ context.Context, job *mulligan.Job, e email) (sent, error) {
		return sent{ID: e.To + "#" + job.ID}, nil
	})
	result, err := h.Handle(context.Background(), &mulligan.Job{ID: "7", Payload: []byte(`{"To":"ann","Text":"hi"}`)})
	fmt.Println(string(result), err)
	// Output: {"id":"ann#7"} <nil>
}

func ExamplePermanent() {
	err := mulligan.Permanent(mulligan.Typed("card_declined", errors.New("no money")))
	var permanent *mulligan.PermanentError
	fmt.Println(errors.As(err, &permanent), mulligan.ErrorType(err), err)
	// Output: true card_declined no money
}

func ExampleAfter() {
	err := mulligan.After(30*time.Second, errors.New("too many requests"))
	var throttled *mulligan.ThrottledError
	if errors.As(err, &throttled) {
		fmt.Println(throttled.Delay, err)
	}
	// Output: 30s too many requests
}

func ExampleChanged() {
	err := mulligan.Changed([]byte("a shorter prompt"), errors.New("prompt too long"))
	var changed *mulligan.ChangedError
	if errors.As(err, &changed) {
		fmt.Println(string(changed.Payload), "-", err)
	}
	// Output: a shorter prompt - prompt too long
}

func ExampleUnusable() {
	fmt.Println(mulligan.Unusable(errors.New("the answer is not JSON")))
	// Output: the answer is not JSON
}

func ExampleSnooze() {
	fmt.Println(mulligan.Snooze(time.Hour))
	// Output: snoozed for 1h0m0s
}

func ExampleNotStarted() {
	err := mulligan.NotStarted(errors.New("no connection"))
	var notStarted *mulligan.NotStartedError
	fmt.Println(errors.As(err, &notStarted), err)
	// Output: true no connection
}

func ExampleTyped() {
	fmt.Println(mulligan.ErrorType(mulligan.Typed("card_declined", errors.New("no"))))
	fmt.Println(mulligan.ErrorType(context.DeadlineExceeded))
	// Output:
	// card_declined
	// timeout
}

func ExampleRecord() {
	rec := &mulligan.Record{State: mulligan.Live}
	rec.Note(mulligan.Attempt{Number: 1, Run: "r1", Error: "connection\nreset"})
	back, err := mulligan.DecodeRecord(rec.Encode())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(back.State, back.Ended(), back.Last().Number, back.Last().Error)
	// Output: live false 1 connection reset
}

func ExampleTopology_Ensure() {
	env, stop := natstest.Start()
	defer stop()
	ctx := context.Background()

	topology := mulligan.Topology{Prefix: "acme", JobsMaxBytes: 1 << 30}
	for range 2 { // as often as you like
		if err := topology.Ensure(ctx, env.JS); err != nil {
			log.Fatal(err)
		}
	}
	jobs, err := env.JS.Stream(ctx, topology.JobsStream())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(jobs.CachedInfo().Config.Name, jobs.CachedInfo().Config.Subjects)
	// Output: ACME_JOBS [acme.jobs.>]
}

func ExampleTopology_EnsureConsumers() {
	env, stop := natstest.Start()
	defer stop()
	ctx := context.Background()

	var topology mulligan.Topology
	if err := topology.Ensure(ctx, env.JS); err != nil {
		log.Fatal(err)
	}
	kind, err := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Downstream: "mailer"}.Normal()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := topology.Declare(ctx, env.JS, []mulligan.Kind{kind}); err != nil {
		log.Fatal(err)
	}
	if err := topology.EnsureConsumers(ctx, env.JS, []string{kind.Downstream}); err != nil {
		log.Fatal(err)
	}
	kinds, err := topology.Kinds(ctx, env.JS)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(kinds), kinds[0].Name, kinds[0].Downstream)
	// Output: 1 email.send mailer
}

// started is a publisher of email.send on a server of its own.
func started() (p *mulligan.Publisher, stop func()) {
	env, stop := natstest.Start()
	if err := (mulligan.Topology{}).Ensure(context.Background(), env.JS); err != nil {
		log.Fatal(err)
	}
	kinds := []mulligan.Kind{{Name: "email.send", Effect: mulligan.Keyed}}
	return &mulligan.Publisher{Conn: env.Conn, Kinds: kinds}, stop
}

func ExamplePublisher_Publish() {
	p, stop := started()
	defer stop()

	job := mulligan.Job{Kind: "email.send", ID: "order-7", User: "ann", Payload: []byte(`{"to":"ann@example.com"}`)}
	for range 2 {
		receipt, err := p.Publish(context.Background(), job)
		fmt.Println(receipt.Seq, receipt.Duplicate, err)
	}
	job.Payload = []byte(`{"to":"bob@example.com"}`)
	_, err := p.Publish(context.Background(), job)
	fmt.Println(errors.Is(err, mulligan.ErrKeyConflict))
	// Output:
	// 1 false <nil>
	// 1 true <nil>
	// true
}

func ExamplePublisher_PublishMany() {
	p, stop := started()
	defer stop()

	for _, o := range p.PublishMany(context.Background(), []mulligan.Job{
		{Kind: "email.send", ID: "order-7"},
		{Kind: "email.send"},
	}) {
		fmt.Printf("%q %v\n", o.Receipt.ID, o.Err)
	}
	// Output:
	// "order-7" <nil>
	// "" mulligan: no idempotency key: kind email.send is keyed and needs an ID from its publisher
}

func ExamplePublisher_Status() {
	p, stop := started()
	defer stop()

	if _, err := p.Publish(context.Background(), mulligan.Job{Kind: "email.send", ID: "order-7"}); err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"order-7", "order-8"} {
		status, err := p.Status(context.Background(), "email.send", id)
		fmt.Println(status.ID, status.State, err)
	}
	// Output:
	// order-7 queued <nil>
	// order-8 unknown <nil>
}

func ExamplePublisher_Result() {
	p, stop := started()
	defer stop()

	if _, err := p.Publish(context.Background(), mulligan.Job{Kind: "email.send", ID: "order-7"}); err != nil {
		log.Fatal(err)
	}
	_, err := p.Result(context.Background(), "email.send", "order-7") // no worker runs here
	fmt.Println(errors.Is(err, mulligan.ErrNotDone), err)
	// Output: true mulligan: not done yet: email.send "order-7" is queued
}

func ExamplePublisher_Wait() {
	p, stop := started()
	defer stop()

	if _, err := p.Publish(context.Background(), mulligan.Job{Kind: "email.send", ID: "order-7"}); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	status, err := p.Wait(ctx, "email.send", "order-7") // no worker runs here
	fmt.Println(status.State, err)
	// Output: queued context deadline exceeded
}

func ExampleTopology_WatchKinds() {
	env, stop := natstest.Start()
	defer stop()
	ctx := context.Background()
	var topology mulligan.Topology
	if err := topology.Ensure(ctx, env.JS); err != nil {
		log.Fatal(err)
	}
	learned := make(chan string, 1)
	unwatch, err := topology.WatchKinds(ctx, env.JS, func(name string, k *mulligan.Kind, _ error) { learned <- name + " is " + string(k.Effect) })
	if err != nil {
		log.Fatal(err)
	}
	defer unwatch()
	if _, err := topology.Declare(ctx, env.JS, []mulligan.Kind{{Name: "email.send", Effect: mulligan.Keyed}}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-learned)
	// Output: email.send is keyed
}

func ExampleJob_StepKey() {
	job := mulligan.Job{Kind: "order.confirm", ID: "order 7"}
	fmt.Println(job.StepKey("charge"))
	// Output: order.confirm/=b3JkZXIgNw/charge
}

func ExampleStep() {
	confirm := mulligan.JSON(func(ctx context.Context, job *mulligan.Job, order struct{ To string }) (string, error) {
		// Done once, however often the job is tried.
		receipt, err := mulligan.Step(ctx, job, "charge", func(ctx context.Context) (string, error) {
			return "charged under " + job.StepKey("charge"), nil // the key goes to the downstream
		})
		if err != nil {
			return "", err
		}
		_, err = mulligan.Step(ctx, job, "mail", func(ctx context.Context) (string, error) { return "sent to " + order.To, nil })
		return receipt, err
	})
	// Without a worker nothing keeps what became of a step.
	_, err := confirm.Handle(context.Background(), &mulligan.Job{Kind: "order.confirm", ID: "7", Payload: []byte(`{}`)})
	fmt.Println(err)
	// Output: step "charge": kind order.confirm is pure, or the job was not given by a worker: only keyed and once kinds have steps
}
