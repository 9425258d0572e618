package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// consumers checks those of every downstream and the scheduler's.
func (f *findings) consumers(ctx context.Context, kinds []mulligan.Kind) {
	t := f.Topology
	all := []*queue{f.queue(ctx, t.SpentQueue(), []string{t.SpentRoot() + ".>"})}
	for _, d := range downstreams(kinds) {
		for _, q := range t.Queues(d) {
			var filters []string
			for _, k := range kinds {
				if k.Downstream == d {
					filters = append(filters, q.Filter(k.Name))
				}
			}
			all = append(all, f.queue(ctx, q, filters))
		}
	}
	all = slices.DeleteFunc(all, func(q *queue) bool { return q == nil })
	f.acquit(ctx, all)
	f.undelivered(ctx, slices.DeleteFunc(all, func(q *queue) bool { return !f.sound(q) }))
}

// queue is a consumer that is there and made as it should be.
type queue struct {
	*jetstream.ConsumerInfo
	check   string
	filters int
	passed  mulligan.Passed
	blind   error // why it is not known whether it has passed over jobs
}

const mend = "run `mulligan provision --config FILE`; a worker or scheduler that may do it does it by itself"

// queue looks at one, and says what is wrong with it at once.
func (f *findings) queue(ctx context.Context, q mulligan.Queue, filters []string) *queue {
	check := "consumer " + q.Stream + " " + q.Durable
	info, err := mulligan.ConsumerInfo(ctx, f.js, q.Stream, q.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		f.fail(check, "missing", mend)
		return nil
	}
	if err != nil {
		f.fail(check, err.Error(), "check that this user may read the consumer")
		return nil
	}
	if fault := mulligan.ConsumerFault(info.Config, filters); fault != "" {
		f.fail(check, fault, mend+"; never delete a consumer: that redelivers everything")
		return nil
	}
	passed, err := mulligan.PassedOver(ctx, f.js, info)
	return &queue{info, check, len(filters), passed, err}
}

// acquit looks once more for what seems to be passed over: it may have been
// acknowledged just now.
func (f *findings) acquit(ctx context.Context, all []*queue) {
	suspect := func(q *queue) bool { return q.passed.Seq != 0 }
	if !slices.ContainsFunc(all, suspect) || pause.For(ctx, mulligan.SettleWait) != nil {
		return
	}
	for _, q := range all {
		if !suspect(q) {
			continue
		}
		stays, err := q.passed.Stays(ctx, f.js)
		if q.blind = err; !stays {
			q.passed = mulligan.Passed{}
		}
	}
}

// sound says what is wrong with a consumer that is made as it should be, and
// reports whether nothing is.
func (f *findings) sound(q *queue) bool {
	switch {
	case q.blind != nil:
		f.warn(q.check, "cannot see whether it has passed over jobs: "+q.blind.Error(), "check that this user may read messages of the stream")
	case q.passed.Seq != 0:
		f.fail(q.check, fmt.Sprintf("it has passed over jobs and will never deliver them, such as %.120q", q.passed.Subject), mend)
	case q.Paused:
		f.warn(q.check, fmt.Sprintf("it is paused for another %v; %d jobs wait", q.PauseRemaining.Round(time.Second), q.NumPending), fmt.Sprintf("if it should go on, run `nats consumer resume %s %s`", q.Stream, q.Name))
	case q.Config.MaxWaiting > 0 && q.NumWaiting >= q.Config.MaxWaiting:
		f.warn(q.check, fmt.Sprintf("all its %d places for requests are taken, and it refuses others", q.NumWaiting), "end other clients that ask it for jobs, or some workers: each makes two requests")
	default:
		f.ok(q.check, "%d filters", q.filters)
		return true
	}
	return false
}

const lookAgain = time.Second // after which what the server does at every moment has changed

// undelivered looks for consumers that are asked for jobs, have some, and give
// none: at two moments.
func (f *findings) undelivered(ctx context.Context, all []*queue) {
	waited := false
	for _, c := range all {
		if !stalled(c.ConsumerInfo, c.ConsumerInfo) {
			continue
		}
		if !waited && pause.For(ctx, lookAgain) != nil {
			return
		}
		waited = true
		now, err := mulligan.ConsumerInfo(ctx, f.js, c.Stream, c.Name)
		if err != nil || !stalled(c.ConsumerInfo, now) {
			continue
		}
		f.fail(c.check, fmt.Sprintf("%d jobs wait, %d requests ask for them, and the server gives none", now.NumPending, now.NumWaiting),
			fmt.Sprintf("have another server lead it, with `nats consumer cluster step-down %s %s`; if it is alone, restart it", c.Stream, c.Name))
	}
}

// stalled reports whether a consumer had jobs and requests for them at both
// moments, and delivered nothing between.
func stalled(was, now *jetstream.ConsumerInfo) bool {
	wanted := func(c *jetstream.ConsumerInfo) bool { return c.NumWaiting > 0 && c.NumPending > 0 }
	return wanted(was) && wanted(now) && was.Delivered.Consumer == now.Delivered.Consumer
}

// stuck says which jobs wait in vain, as a worker sees it.
func (f *findings) stuck(d consumer.DownstreamState, where string) {
	for _, s := range d.Stuck {
		say := f.fail
		if s.Why == "paused" {
			say = f.warn
		}
		say("downstream "+d.Name, fmt.Sprintf("stuck, %s, since %s UTC: %s", where, s.Since.UTC().Format(time.TimeOnly), s.Cause), s.Do)
	}
}

// taken looks for jobs that somebody has who is no worker: given out a while ago,
// and none that lives has any in hand.
func (f *findings) taken(ctx context.Context, all []consumer.State) {
	const longest = 10 * time.Second // that a worker lets a job of which it has let go come again
	inHand := map[string]int{}
	for _, w := range all {
		for _, d := range w.Downstreams {
			inHand[d.Name] += d.InHand
		}
	}
	for name, n := range inHand {
		for _, q := range f.Topology.Queues(name) {
			c, err := mulligan.ConsumerInfo(ctx, f.js, q.Stream, q.Durable)
			if n > 0 || err != nil || c.NumAckPending == 0 || c.Delivered.Last == nil || c.TimeStamp.Sub(*c.Delivered.Last) < longest {
				continue
			}
			f.warn("downstream "+name, fmt.Sprintf("%d jobs of %s were given to somebody who is no live worker", c.NumAckPending, q.Stream),
				fmt.Sprintf("look again in half a minute: if it was a worker that ended they are back; else find the client that takes them, with `nats consumer info %s %s`", q.Stream, c.Name))
		}
	}
}
