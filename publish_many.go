package mulligan

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// An Outcome is the fate of one job of [Publisher.PublishMany].
type Outcome struct {
	Receipt Receipt
	Err     error
}

const (
	publishWindow = 512 // jobs; two windows are on their way to the server at once
	askAtOnce     = 64  // questions to the server
	floodTries    = 10  // of a job that a flooded stream did not take, with eleven seconds between them at most
)

// PublishMany stores jobs, many at a time, and returns the fate of each in the
// same order. One job's error says nothing about the others. Jobs that the stream
// does not take because too many wait for it are sent again, for some seconds. When
// ctx ends, the jobs that were not answered have an error wrapping [ErrUnconfirmed]
// or ctx's.
func (p *Publisher) PublishMany(ctx context.Context, jobs []Job) []Outcome {
	out := make([]Outcome, len(jobs))
	if err := p.connect(ctx); err != nil { // do not ask a server that is away once a job
		for i, j := range jobs {
			out[i] = Outcome{Receipt: Receipt{Kind: j.Kind, ID: j.ID}, Err: err}
		}
		return out
	}
	var answers sync.WaitGroup
	for start := 0; start < len(jobs); start += publishWindow {
		end := min(start+publishWindow, len(jobs))
		sent := p.sendMany(ctx, jobs[start:end], out[start:end])
		answers.Wait() // those of the window before
		answers.Go(func() { p.settleMany(ctx, sent, out[start:end]) })
	}
	answers.Wait()
	return out
}

// onWay is a job on its way to the server.
type onWay struct {
	*draft
	answer jetstream.PubAckFuture // nil if it was not sent
}

func (p *Publisher) sendMany(ctx context.Context, jobs []Job, out []Outcome) []onWay {
	sent := make([]onWay, len(jobs))
	draft := func(i int) { sent[i].draft, out[i].Err = p.draft(ctx, &jobs[i]) }
	var unknown, recorded []int // what is to be asked about
	for i := range jobs {
		if _, ok := p.kind(jobs[i].Kind); !ok {
			unknown = append(unknown, i)
			continue
		}
		draft(i)
	}
	eachAtOnce(unknown, draft)
	for i := range sent {
		if out[i].Err == nil && sent[i].recorded {
			recorded = append(recorded, i)
		}
	}
	eachAtOnce(recorded, func(i int) { out[i].Err = p.consult(ctx, sent[i].draft) })
	for i, d := range sent {
		out[i].Receipt = d.receipt
		if out[i].Err != nil || d.receipt.Ended() {
			continue
		}
		f, err := call.Do(ctx, "many.send", func() (jetstream.PubAckFuture, error) { return p.js.PublishMsgAsync(d.msg) })
		if err != nil {
			out[i].Err = fmt.Errorf("publish %s %.80q: %w", d.job.Kind, d.job.ID, publishError(err))
			continue
		}
		sent[i].answer = f
	}
	return sent
}

// settleMany waits for the answers, then asks about the jobs that were not simply
// stored.
func (p *Publisher) settleMany(ctx context.Context, sent []onWay, out []Outcome) {
	acks, errs := make([]*jetstream.PubAck, len(sent)), make([]error, len(sent))
	var unsettled []int
	for i, d := range sent {
		if d.answer == nil {
			continue
		}
		acks[i], errs[i] = call.Do(ctx, "many.answer", func() (*jetstream.PubAck, error) { return wait(ctx, d.answer) })
		if errs[i] != nil || acks[i].Duplicate {
			unsettled = append(unsettled, i)
			continue
		}
		out[i].Receipt, out[i].Err = p.settle(ctx, d.draft, acks[i], nil)
	}
	eachAtOnce(unsettled, func(i int) {
		ack, err := acks[i], errs[i]
		for try := 0; flooded(err) && try < floodTries && pause.For(ctx, rand.N(floodPause(try))) == nil; try++ {
			ack, err = p.store(ctx, sent[i].draft)
		}
		out[i].Receipt, out[i].Err = p.settle(ctx, sent[i].draft, ack, err)
	})
}

// floodPause is the longest pause before a flooded stream is tried again.
func floodPause(try int) time.Duration { return min(50*time.Millisecond<<try, 2*time.Second) }

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

// eachAtOnce calls do for each, many at once.
func eachAtOnce(each []int, do func(i int)) {
	var all errgroup.Group
	all.SetLimit(askAtOnce)
	for _, i := range each {
		all.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = all.Wait()
}
