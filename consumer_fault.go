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

// A Passed is a message that a consumer seems to have passed over; the zero Passed
// is none.
type Passed struct {
	Stream, Subject string
	Seq             uint64
}

// PassedOver returns a message that a consumer will never deliver, if there is one:
// all up to its ack floor is acknowledged, so what lies there has been passed over,
// after a reset to a place ahead. One acknowledged just now may still lie there for
// a moment: only what [Passed.Stays] was passed over.
//
// It asks from the stream's beginning: from there the server knows at once of a kind
// that it has no messages. From a later place it goes through all others' to say so.
func PassedOver(ctx context.Context, js jetstream.JetStream, info *jetstream.ConsumerInfo) (Passed, error) {
	ctx, cancel := context.WithTimeout(ctx, passedWait)
	defer cancel()
	s, err := js.Stream(ctx, info.Stream)
	if err != nil {
		return Passed{}, err
	}
	floor := info.AckFloor.Stream
	if state := s.CachedInfo().State; state.Msgs == 0 || state.FirstSeq > floor {
		return Passed{}, nil
	}
	for _, f := range filtersOf(info.Config) {
		m, err := getMsg(ctx, js, info.Stream, msgAsk{Seq: 1, NextFor: f})
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
		case err != nil:
			return Passed{}, err
		case m.Sequence <= floor:
			return Passed{info.Stream, m.Subject, m.Sequence}, nil
		}
	}
	return Passed{}, nil
}

// Stays reports whether the message still lies there. Ask [SettleWait] after it was
// found.
func (p Passed) Stays(ctx context.Context, js jetstream.JetStream) (bool, error) {
	_, err := getMsg(ctx, js, p.Stream, msgAsk{Seq: p.Seq})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}

const (
	// SettleWait is how long a stream takes, at most, to remove what is acknowledged.
	SettleWait = 2 * time.Second
	passedWait = 5 * time.Second // for all questions of one look
)

// rescue adopts what the consumer has passed over, and reports whether there was
// any.
func (c consumerSpec) rescue(ctx context.Context, js jetstream.JetStream, info *jetstream.ConsumerInfo) (rescued bool, err error) {
	own := *info
	own.Config = c.config() // not what was another's before
	found, err := PassedOver(ctx, js, &own)
	if err != nil || found == (Passed{}) {
		return false, err
	}
	if err := pause.For(ctx, SettleWait); err != nil {
		return false, err
	}
	if stays, err := found.Stays(ctx, js); !stays {
		return false, err
	}
	return true, c.adopt(ctx, js, c.filters, info.AckFloor.Stream)
}

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
