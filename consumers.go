package mulligan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
)

// AckWait is how long a message may go without a sign from its worker before
// the server gives it to another; workers give a sign every ProgressEvery.
const (
	AckWait       = 30 * time.Second
	ProgressEvery = 10 * time.Second
)

const (
	metaDownstream = "mulligan.downstream"
	metaAdopt      = "mulligan.adopt" // subjects whose older messages are still to be adopted
)

// SchedulerConsumer is the durable that hands spent jobs to schedulers.
const SchedulerConsumer = "_scheduler"

// DurableName is the consumer of a downstream: its name with every byte that a
// consumer's name may not have, and the underscore, as _XX.
func DurableName(downstream string) string {
	var b strings.Builder
	for i := range len(downstream) {
		c := downstream[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "_%02X", c)
	}
	return b.String()
}

func (t Topology) ensureScheduler(ctx context.Context, js jetstream.JetStream) error {
	c := consumerSpec{stream: t.RetriesStream(), durable: SchedulerConsumer, filters: []string{t.SpentRoot() + ".>"}}
	if err := c.ensure(ctx, js); err != nil {
		return fmt.Errorf("ensure consumer %s: %w", SchedulerConsumer, err)
	}
	return nil
}

// EnsureConsumers makes the two consumers of each downstream, one for fresh
// jobs and one for retries, cover all kinds declared for it. Nothing is ever
// deleted or recreated: a kind that moves to another downstream leaves the old
// one's filters. Call it after [Topology.Declare].
func (t Topology) EnsureConsumers(ctx context.Context, js jetstream.JetStream, downstreams []string) error {
	return t.alone(ctx, js, func(ctx context.Context) error { return t.ensureConsumers(ctx, js, downstreams) })
}

func (t Topology) ensureConsumers(ctx context.Context, js jetstream.JetStream, downstreams []string) error {
	const tries = 10 // each further one is owed to a process that declared kinds meanwhile
	for range tries {
		kinds, err := t.Kinds(ctx, js)
		if err != nil {
			return err
		}
		for _, d := range downstreams {
			if err := t.ensureDownstream(ctx, js, d, kinds); err != nil {
				return fmt.Errorf("ensure consumers of downstream %s: %w", d, err)
			}
		}
		again, err := t.Kinds(ctx, js)
		if err != nil {
			return err
		}
		if slices.Equal(kinds, again) {
			return nil
		}
	}
	return errors.New("ensure consumers: the declared kinds keep changing; are workers with different declarations fighting?")
}

func (t Topology) ensureDownstream(ctx context.Context, js jetstream.JetStream, downstream string, kinds []Kind) error {
	jobs := consumerSpec{stream: t.JobsStream(), durable: DurableName(downstream), downstream: downstream, due: t.DueRoot(), root: t.JobsRoot()}
	retries := jobs
	retries.stream, retries.root = t.RetriesStream(), t.DueRoot()
	for _, k := range kinds {
		if k.Downstream == downstream {
			jobs.filters = append(jobs.filters, jobs.root+"."+k.Name+".*")
			retries.filters = append(retries.filters, retries.root+"."+k.Name+".*")
		}
	}
	// Retries first: jobs adopted into them must find a consumer.
	for _, c := range []consumerSpec{retries, jobs} {
		if err := c.release(ctx, js); err != nil {
			return err
		}
		if err := c.ensure(ctx, js); err != nil {
			return err
		}
	}
	return nil
}

// consumerSpec is a durable pull consumer as it should be.
type consumerSpec struct {
	stream, durable, downstream string
	root, due                   string // of the subjects that it filters, and where adopted jobs go
	filters                     []string
}

func (c consumerSpec) config() jetstream.ConsumerConfig {
	filters := c.filters
	if len(filters) == 0 {
		// A consumer without filters would get everything; no kind is named so.
		filters = []string{c.root + ".=none." + c.durable}
	}
	meta := map[string]string{metaVersion: strconv.Itoa(topologyVersion)}
	if c.downstream != "" {
		meta[metaDownstream] = c.downstream
	}
	return jetstream.ConsumerConfig{
		Durable: c.durable, FilterSubjects: filters, Metadata: meta,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: AckWait,
		MaxDeliver: -1, MaxAckPending: -1, DeliverPolicy: jetstream.DeliverAllPolicy,
	}
}

// ensure creates the consumer, or gives it the filters it lacks.
//
// A consumer never delivers what lies before the place that it has reached, so
// a filter added to a busy one misses the jobs that were published before. They
// are adopted; the consumer's metadata says so until that is finished, for the
// process that comes after a crash.
func (c consumerSpec) ensure(ctx context.Context, js jetstream.JetStream) error {
	have, err := js.Consumer(ctx, c.stream, c.durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		have, err = call.Do(ctx, "consumer.create", func() (jetstream.Consumer, error) { return js.CreateConsumer(ctx, c.stream, c.config()) })
		if errors.Is(err, jetstream.ErrConsumerExists) {
			have, err = js.Consumer(ctx, c.stream, c.durable)
		}
	}
	if err != nil {
		return err
	}
	cfg := have.CachedInfo().Config
	if v, _ := strconv.Atoi(cfg.Metadata[metaVersion]); v > topologyVersion {
		return nil
	}
	want := c.config()
	added := slices.DeleteFunc(slices.Clone(want.FilterSubjects), func(f string) bool { return slices.Contains(filtersOf(cfg), f) })
	pending := strings.Fields(cfg.Metadata[metaAdopt])
	if len(added) == 0 && len(pending) == 0 && sameConsumer(cfg, want) {
		return nil
	}
	if c.downstream == "" { // a scheduler's filter never changes
		return call.Err(ctx, "consumer.update", func() error { return update(ctx, js, c.stream, cfg, want) })
	}
	for _, f := range added {
		if !slices.Contains(pending, f) {
			pending = append(pending, f)
		}
	}
	want.Metadata[metaAdopt] = strings.Join(pending, " ")
	if err := call.Err(ctx, "adopt.begin", func() error { return update(ctx, js, c.stream, cfg, want) }); err != nil {
		return err
	}
	if err := c.adopt(ctx, js, pending); err != nil {
		return err
	}
	next := want
	next.Metadata = maps.Clone(want.Metadata)
	delete(next.Metadata, metaAdopt)
	return call.Err(ctx, "adopt.end", func() error { return update(ctx, js, c.stream, cfg, next) })
}

// update writes what Mulligan decides about a consumer over what is there.
func update(ctx context.Context, js jetstream.JetStream, stream string, have, want jetstream.ConsumerConfig) error {
	have.FilterSubject, have.FilterSubjects = "", want.FilterSubjects
	have.AckWait, have.MaxDeliver, have.MaxAckPending, have.BackOff = want.AckWait, want.MaxDeliver, want.MaxAckPending, nil
	have.Metadata = want.Metadata
	_, err := js.UpdateConsumer(ctx, stream, have)
	return err
}

func filtersOf(cfg jetstream.ConsumerConfig) []string {
	if cfg.FilterSubject != "" {
		return []string{cfg.FilterSubject}
	}
	return cfg.FilterSubjects
}

func sameConsumer(have, want jetstream.ConsumerConfig) bool {
	a, b := slices.Sorted(slices.Values(filtersOf(have))), slices.Sorted(slices.Values(want.FilterSubjects))
	return slices.Equal(a, b) && have.AckWait == want.AckWait && have.MaxDeliver == want.MaxDeliver &&
		have.MaxAckPending == want.MaxAckPending && len(have.BackOff) == 0 && have.Metadata[metaVersion] == want.Metadata[metaVersion]
}

// release takes this consumer's filters out of any other: on a work queue one
// subject has one consumer.
func (c consumerSpec) release(ctx context.Context, js jetstream.JetStream) error {
	s, err := js.Stream(ctx, c.stream)
	if err != nil {
		return notProvisioned(err)
	}
	list := s.ListConsumers(ctx)
	for info := range list.Info() {
		if info.Name == c.durable || info.Config.Metadata[metaDownstream] == "" {
			continue
		}
		other := consumerSpec{stream: c.stream, durable: info.Name, downstream: info.Config.Metadata[metaDownstream], root: c.root}
		other.filters = slices.DeleteFunc(slices.Clone(filtersOf(info.Config)), func(f string) bool { return slices.Contains(c.filters, f) })
		if len(other.filters) == len(filtersOf(info.Config)) {
			continue
		}
		next := other.config()
		if left := info.Config.Metadata[metaAdopt]; left != "" {
			next.Metadata[metaAdopt] = left
		}
		if err := call.Err(ctx, "adopt.release", func() error { return update(ctx, js, c.stream, info.Config, next) }); err != nil {
			return fmt.Errorf("take kinds from downstream %s: %w", other.downstream, err)
		}
	}
	return list.Err()
}

// adopt moves the messages of filters that lie before the consumer's place to
// the end of the retries that are due: stored there first, then removed here.
func (c consumerSpec) adopt(ctx context.Context, js jetstream.JetStream, filters []string) error {
	s, err := js.Stream(ctx, c.stream)
	if err != nil {
		return err
	}
	// Up to the stream's end, not to the place that the consumer says it has
	// reached: it may pass over the message just behind that while its filters
	// change.
	reached := s.CachedInfo().State.LastSeq
	for _, f := range filters {
		for seq := uint64(1); seq <= reached; {
			m, err := call.Do(ctx, "adopt.find", func() (*jetstream.RawStreamMsg, error) {
				return getMsg(ctx, js, c.stream, msgAsk{Seq: seq, NextFor: f})
			})
			if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Sequence > reached {
				break
			}
			if err != nil {
				return err
			}
			if err := c.adoptOne(ctx, js, s, m); err != nil {
				return fmt.Errorf("adopt %s: %w", Address(c.stream, m.Sequence), err)
			}
			seq = m.Sequence + 1
		}
	}
	return nil
}

func (c consumerSpec) adoptOne(ctx context.Context, js jetstream.JetStream, s jetstream.Stream, m *jetstream.RawStreamMsg) error {
	kind, token := SplitSubject(c.root, m.Subject)
	msg := &nats.Msg{Subject: Subject(c.due, kind, SafeToken(token)), Header: m.Header, Data: m.Data}
	if c.root != c.due {
		e, _ := OpenJob(kind, token, &nats.Msg{Header: m.Header, Data: m.Data}, m.Time) // malformed jobs move too: a worker spends them
		msg = e.Moved(msg.Subject)
	}
	for name := range msg.Header {
		if strings.HasPrefix(strings.ToLower(name), natsPrefix) {
			delete(msg.Header, name)
		}
	}
	err := call.Err(ctx, "adopt.publish", func() error {
		_, err := js.PublishMsg(ctx, msg, jetstream.WithMsgID("adopt:"+MoveID(Address(c.stream, m.Sequence), m.Time)))
		return err
	})
	if err != nil {
		return err
	}
	return call.Err(ctx, "adopt.delete", func() error {
		err := s.DeleteMsg(ctx, m.Sequence)
		if err == nil {
			return nil
		}
		// Another process that adopts may have been faster.
		if _, gone := getMsg(ctx, js, c.stream, msgAsk{Seq: m.Sequence}); errors.Is(gone, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
}
