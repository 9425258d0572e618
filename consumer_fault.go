package mulligan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// MaxPull is how many messages a worker asks a consumer for at once, at most,
// and PullWait how long one request waits there, at most.
const (
	MaxPull  = 500
	PullWait = 5 * time.Second
)

const defaultMaxWaiting = 512 // requests that a consumer takes, as the server has it

// ConsumerInfo asks the server about a consumer, also one that somebody has made
// push.
func ConsumerInfo(ctx context.Context, js jetstream.JetStream, stream, durable string) (*jetstream.ConsumerInfo, error) {
	c, err := js.Consumer(ctx, stream, durable)
	if errors.Is(err, jetstream.ErrNotPullConsumer) {
		p, err := js.PushConsumer(ctx, stream, durable)
		if err != nil {
			return nil, err
		}
		return p.CachedInfo(), nil
	}
	if err != nil {
		return nil, err
	}
	return c.CachedInfo(), nil
}

// ConsumerFault says what about a consumer keeps jobs waiting or spoils their
// retries; filters are those that it needs. It is empty if there is nothing, or if
// a newer program made it.
func ConsumerFault(cfg jetstream.ConsumerConfig, filters []string) string {
	if newer(cfg) {
		return ""
	}
	for _, want := range filters {
		if !slices.Contains(filtersOf(cfg), want) {
			return "it does not deliver " + want
		}
	}
	say := func(is bool, format string, args ...any) string {
		if !is {
			return ""
		}
		return fmt.Sprintf(format, args...)
	}
	return cmp.Or(fixedFault(cfg),
		say(len(cfg.BackOff) > 0, "it has a BackOff, which spoils the delays of retries"),
		say(cfg.AckWait != AckWait, "its AckWait is %v, not %v", cfg.AckWait, AckWait),
		say(cfg.MaxDeliver > 0, "it stops after %d deliveries", cfg.MaxDeliver),
		say(cfg.MaxAckPending > 0, "it stops at %d jobs that are not acknowledged", cfg.MaxAckPending),
		say(cfg.HeadersOnly, "it delivers jobs without their payloads"),
		say(cfg.MaxRequestBatch > 0 && cfg.MaxRequestBatch < MaxPull, "it refuses requests for more than %d jobs", cfg.MaxRequestBatch),
		say(cfg.MaxRequestExpires > 0 && cfg.MaxRequestExpires < PullWait, "it refuses requests that wait longer than %v", cfg.MaxRequestExpires),
		say(cfg.MaxRequestMaxBytes > 0, "it bounds the bytes of a request"),
		say(len(cfg.PriorityGroups) > 0, "it serves only clients of its priority groups"),
		say(cfg.InactiveThreshold > 0, "the server deletes it when nobody has asked for %v", cfg.InactiveThreshold))
}

func newer(cfg jetstream.ConsumerConfig) bool {
	v, _ := strconv.Atoi(cfg.Metadata[metaVersion])
	return v > topologyVersion
}

// fixedFault is the part of [ConsumerFault] that the server changes in no consumer
// that is there.
func fixedFault(cfg jetstream.ConsumerConfig) string {
	switch {
	case cfg.DeliverSubject != "":
		return "it pushes jobs to " + cfg.DeliverSubject + " and refuses all requests"
	case cfg.AckPolicy != jetstream.AckExplicitPolicy:
		return "it does not ask for explicit acks"
	case cfg.MaxWaiting > 0 && cfg.MaxWaiting < defaultMaxWaiting:
		return fmt.Sprintf("it takes no more than %d requests at once, from all workers", cfg.MaxWaiting)
	case cfg.ReplayPolicy != jetstream.ReplayInstantPolicy:
		return "it delivers jobs no faster than they were published"
	}
	return ""
}

// rivals adds to the server's refusal to make the consumer which others have its
// subjects.
func (c consumerSpec) rivals(ctx context.Context, js jetstream.JetStream, refusal error) error {
	const notUnique, unfiltered = 10100, 10099 // the server's codes
	var api *jetstream.APIError
	if !errors.As(refusal, &api) || api.ErrorCode != notUnique && api.ErrorCode != unfiltered {
		return refusal
	}
	all, _ := consumersOf(ctx, js, c.Stream) // those that it got to know
	for _, info := range all {
		if info.Config.Metadata[metaVersion] == "" {
			refusal = fmt.Errorf("%w; remove the foreign one with `nats consumer rm %s %s`", refusal, c.Stream, info.Name)
		}
	}
	return refusal
}

// PassedOver returns the subject of a message that a consumer will never deliver,
// or nothing: all up to its ack floor is acknowledged, so what lies there has been
// passed over, after a reset to a place ahead. A message acknowledged just now may
// seem to be one for a moment.
func PassedOver(ctx context.Context, js jetstream.JetStream, info *jetstream.ConsumerInfo) (subject string, err error) {
	s, err := js.Stream(ctx, info.Stream)
	if err != nil {
		return "", err
	}
	floor := info.AckFloor.Stream
	if state := s.CachedInfo().State; state.Msgs == 0 || state.FirstSeq > floor {
		return "", nil
	}
	for _, f := range filtersOf(info.Config) {
		m, err := getMsg(ctx, js, info.Stream, msgAsk{Seq: 1, NextFor: f})
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
		case err != nil:
			return "", err
		case m.Sequence <= floor:
			return m.Subject, nil
		}
	}
	return "", nil
}

// rescue adopts what the consumer has passed over.
func (c consumerSpec) rescue(ctx context.Context, js jetstream.JetStream, info *jetstream.ConsumerInfo) error {
	subject, err := PassedOver(ctx, js, info)
	if err != nil || subject == "" {
		return err
	}
	// What was acknowledged just before is gone by then.
	if err := pause.For(ctx, settleWait); err != nil {
		return err
	}
	return c.adopt(ctx, js, c.filters, info.AckFloor.Stream)
}

const settleWait = 2 * time.Second // for the stream to remove what is acknowledged

// remake deletes a consumer that cannot be changed in place, and makes it again,
// which has everything delivered again that is not acknowledged. So it does this
// only while nothing is in anybody's hands. What a worker is given just before
// comes once more; its record decides, as after a crash.
func (c consumerSpec) remake(ctx context.Context, js jetstream.JetStream, have *jetstream.ConsumerInfo) error {
	if n := have.NumAckPending; n > 0 {
		return fmt.Errorf("%s; that cannot be changed in place, and %d jobs are in hand, which would run once more: wait, or remove it with `nats consumer rm %s %s` and provision again",
			fixedFault(have.Config), n, c.Stream, c.Durable)
	}
	err := call.Err(ctx, "consumer.delete", func() error { return js.DeleteConsumer(ctx, c.Stream, c.Durable) })
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	cfg := c.config()
	cfg.PauseUntil = have.Config.PauseUntil
	_, err = call.Do(ctx, "consumer.create", func() (jetstream.Consumer, error) { return js.CreateConsumer(ctx, c.Stream, cfg) })
	return err
}
