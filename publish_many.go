package mulligan

import (
	"context"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
)

// An Outcome is the fate of one job of [Publisher.PublishMany].
type Outcome struct {
	Receipt Receipt
	Err     error
}

const (
	publishWindow = 1024 // jobs on their way to the server at once
	consultAtOnce = 64   // records read at once
)

// PublishMany stores jobs, many at a time, and returns the fate of each in the
// same order. One job's error says nothing about the others. When ctx ends, the
// jobs that were not answered have an error wrapping [ErrUnconfirmed] or
// ctx's.
func (p *Publisher) PublishMany(ctx context.Context, jobs []Job) []Outcome {
	out := make([]Outcome, len(jobs))
	if err := p.connect(ctx); err != nil { // do not ask a server that is away once a job
		for i, j := range jobs {
			out[i] = Outcome{Receipt: Receipt{Kind: j.Kind, ID: j.ID}, Err: err}
		}
		return out
	}
	for start := 0; start < len(jobs); start += publishWindow {
		end := min(start+publishWindow, len(jobs))
		p.publishWindow(ctx, jobs[start:end], out[start:end])
	}
	return out
}

func (p *Publisher) publishWindow(ctx context.Context, jobs []Job, out []Outcome) {
	drafts := make([]*draft, len(jobs))
	eachAtOnce(len(jobs), consultAtOnce, func(i int) {
		drafts[i], out[i].Err = p.draft(ctx, &jobs[i])
		out[i].Receipt = drafts[i].receipt
	})
	sent := make([]jetstream.PubAckFuture, len(jobs))
	for i, d := range drafts {
		if out[i].Err != nil || d.receipt.Ended() {
			continue
		}
		f, err := call.Do(ctx, "many.send", func() (jetstream.PubAckFuture, error) { return p.js.PublishMsgAsync(d.msg) })
		if err != nil {
			out[i].Err = fmt.Errorf("publish %s %.80q: %w", d.job.Kind, d.job.ID, publishError(err))
			continue
		}
		sent[i] = f
	}
	eachAtOnce(len(jobs), consultAtOnce, func(i int) {
		if sent[i] == nil {
			return
		}
		ack, err := call.Do(ctx, "many.answer", func() (*jetstream.PubAck, error) { return wait(ctx, sent[i]) })
		out[i].Receipt, out[i].Err = p.settle(ctx, drafts[i], ack, err)
	})
}

func wait(ctx context.Context, f jetstream.PubAckFuture) (*jetstream.PubAck, error) {
	select {
	case ack := <-f.Ok():
		return ack, nil
	case err := <-f.Err():
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// eachAtOnce calls do for 0 to n-1, up to width at once.
func eachAtOnce(n, width int, do func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, width) {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
