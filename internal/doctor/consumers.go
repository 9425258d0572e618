package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// consumers checks those of every downstream and the scheduler's.
func (f *findings) consumers(ctx context.Context, kinds []mulligan.Kind) {
	t := f.Topology
	all := []*jetstream.ConsumerInfo{f.consumer(ctx, t.RetriesStream(), mulligan.SchedulerConsumer, []string{t.SpentRoot() + ".>"})}
	for _, d := range downstreams(kinds) {
		for _, q := range t.Queues(d) {
			var filters []string
			for _, k := range kinds {
				if k.Downstream == d {
					filters = append(filters, q.Filter(k.Name))
				}
			}
			all = append(all, f.consumer(ctx, q.Stream, q.Durable, filters))
		}
	}
	f.undelivered(ctx, all)
}

// consumer checks one, and returns it if nothing is wrong.
func (f *findings) consumer(ctx context.Context, stream, name string, filters []string) *jetstream.ConsumerInfo {
	check := "consumer " + stream + " " + name
	const do = "run `mulligan provision --config FILE`; a worker that may do it does it by itself"
	info, err := mulligan.ConsumerInfo(ctx, f.js, stream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		f.fail(check, "missing", do)
		return nil
	}
	if err != nil {
		f.fail(check, err.Error(), "check that this user may read the consumer")
		return nil
	}
	if fault := mulligan.ConsumerFault(info.Config, filters); fault != "" {
		f.fail(check, fault, do+"; never delete a consumer: that redelivers everything")
		return nil
	}
	passed, err := f.passedOver(ctx, info)
	switch {
	case err != nil:
		f.warn(check, "cannot see whether it has passed over jobs: "+err.Error(), "check that this user may read messages of the stream")
	case passed != "":
		f.fail(check, fmt.Sprintf("it has passed over jobs and will never deliver them, such as %.120q", passed), do)
	case info.Paused:
		f.warn(check, fmt.Sprintf("it is paused for another %v; %d jobs wait", info.PauseRemaining.Round(time.Second), info.NumPending), fmt.Sprintf("if it should go on, run `nats consumer resume %s %s`", stream, name))
	case info.Config.MaxWaiting > 0 && info.NumWaiting >= info.Config.MaxWaiting:
		f.warn(check, fmt.Sprintf("all its %d places for requests are taken, and it refuses others", info.NumWaiting), "end other clients that ask it for jobs, or some workers: each makes two requests")
	default:
		f.ok(check, "%d filters", len(filters))
		return info
	}
	return nil
}

const lookAgain = time.Second // after which what the server does at every moment has changed

// passedOver asks twice if need be: what was acknowledged just now may still lie
// there.
func (f *findings) passedOver(ctx context.Context, info *jetstream.ConsumerInfo) (subject string, err error) {
	if subject, err = mulligan.PassedOver(ctx, f.js, info); subject == "" || err != nil {
		return "", err
	}
	if err := pause.For(ctx, lookAgain); err != nil {
		return "", err
	}
	return mulligan.PassedOver(ctx, f.js, info)
}

// undelivered looks for consumers that are asked for jobs, have some, and give
// none: at two moments.
func (f *findings) undelivered(ctx context.Context, all []*jetstream.ConsumerInfo) {
	waited := false
	for _, c := range all {
		if c == nil || !stalled(c, c) {
			continue
		}
		if !waited && pause.For(ctx, lookAgain) != nil {
			return
		}
		waited = true
		now, err := mulligan.ConsumerInfo(ctx, f.js, c.Stream, c.Name)
		if err != nil || !stalled(c, now) {
			continue
		}
		f.fail("consumer "+c.Stream+" "+c.Name, fmt.Sprintf("%d jobs wait, %d requests ask for them, and the server gives none", now.NumPending, now.NumWaiting),
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
