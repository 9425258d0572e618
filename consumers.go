package mulligan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/pause"
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

// A Queue is a consumer from which workers pull the jobs of one downstream. Root
// begins their subjects.
type Queue struct{ Stream, Durable, Root string }

// FreshQueue has the jobs that were published.
func (t Topology) FreshQueue(downstream string) Queue {
	return Queue{t.JobsStream(), DurableName(downstream), t.JobsRoot()}
}

// DeferredQueue has the jobs that were put off and are due, and are no retries.
func (t Topology) DeferredQueue(downstream string) Queue {
	// No downstream has this durable: behind _ are capitals and digits there.
	return Queue{t.RetriesStream(), DurableName(downstream) + "_deferred", t.DeferredRoot()}
}

// DueQueue has the retries that are due.
func (t Topology) DueQueue(downstream string) Queue {
	return Queue{t.RetriesStream(), DurableName(downstream), t.DueRoot()}
}

// SpentQueue has the spent jobs, for the schedulers.
func (t Topology) SpentQueue() Queue {
	return Queue{t.RetriesStream(), SchedulerConsumer, t.SpentRoot()}
}

// Queues are all of a downstream: what is adopted from one goes to one before it.
func (t Topology) Queues(downstream string) []Queue {
	return []Queue{t.DueQueue(downstream), t.DeferredQueue(downstream), t.FreshQueue(downstream)}
}

// Filter matches the subjects of a kind's jobs.
func (q Queue) Filter(kind string) string { return Subject(q.Root, kind, "*") }

// MendScheduler makes the schedulers' consumer if there is none, and puts it right
// as [Topology.EnsureConsumers] does the others. It reports whether there was
// anything to do.
func (t Topology) MendScheduler(ctx context.Context, js jetstream.JetStream) (mended bool, err error) {
	c := consumerSpec{Queue: t.SpentQueue(), back: t.SpentRoot(), filters: []string{t.SpentRoot() + ".>"}}
	if mended, err = c.ensure(ctx, js); err != nil {
		return mended, fmt.Errorf("ensure consumer %s: %w", SchedulerConsumer, err)
	}
	return mended, nil
}

// EnsureConsumers makes the queues of each downstream cover all kinds declared
// for it, and puts right what [ConsumerFault] and [PassedOver] find. They are
// updated in place: a kind that moves to another downstream leaves the old one's
// filters. One that cannot be is made anew, but only while nobody has anything of
// it in hand. A pause stays. Call it after [Topology.Declare].
func (t Topology) EnsureConsumers(ctx context.Context, js jetstream.JetStream, downstreams []string) error {
	_, err := t.MendConsumers(ctx, js, downstreams)
	return err
}

// MendConsumers is EnsureConsumers, and reports whether there was anything to do.
func (t Topology) MendConsumers(ctx context.Context, js jetstream.JetStream, downstreams []string) (mended bool, err error) {
	err = t.alone(ctx, js, func(ctx context.Context) error {
		mended, err = t.ensureConsumers(ctx, js, downstreams)
		return err
	})
	return mended, err
}

func (t Topology) ensureConsumers(ctx context.Context, js jetstream.JetStream, downstreams []string) (changed bool, err error) {
	const tries = 10 // each further one is owed to a process that declared kinds meanwhile
	for range tries {
		kinds, err := t.Kinds(ctx, js)
		if err != nil {
			return changed, err
		}
		var failed error
		for _, d := range downstreams {
			did, err := t.ensureDownstream(ctx, js, d, kinds)
			changed = changed || did
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("ensure consumers of downstream %s: %w", d, err))
			}
		}
		if failed != nil {
			return changed, failed
		}
		again, err := t.Kinds(ctx, js)
		if err != nil || slices.Equal(kinds, again) {
			return changed, err
		}
	}
	return changed, errors.New("ensure consumers: the declared kinds keep changing; are workers with different declarations fighting?")
}

// ensureDownstream ensures each queue, also when it cannot ensure another.
func (t Topology) ensureDownstream(ctx context.Context, js jetstream.JetStream, downstream string, kinds []Kind) (changed bool, failed error) {
	for _, q := range t.Queues(downstream) {
		c := consumerSpec{Queue: q, downstream: downstream, back: q.Root}
		if q.Stream == t.JobsStream() {
			c.back = t.DeferredRoot()
		}
		for _, k := range kinds {
			if k.Downstream == downstream {
				c.filters = append(c.filters, q.Filter(k.Name))
			}
		}
		err, did := c.release(ctx, js), false
		if err == nil {
			did, err = c.ensure(ctx, js)
		}
		changed = changed || did
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s of %s: %w", q.Durable, q.Stream, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return changed, failed
}

// consumerSpec is a durable pull consumer as it should be.
type consumerSpec struct {
	Queue
	downstream string
	back       string // begins the subjects where adopted jobs go
	filters    []string
}

func (c consumerSpec) config() jetstream.ConsumerConfig {
	filters := c.filters
	if len(filters) == 0 {
		// A consumer without filters would get everything; no kind is named so.
		filters = []string{c.Root + ".=none." + c.Durable}
	}
	meta := map[string]string{metaVersion: strconv.Itoa(topologyVersion)}
	if c.downstream != "" {
		meta[metaDownstream] = c.downstream
	}
	return jetstream.ConsumerConfig{
		Durable: c.Durable, FilterSubjects: filters, Metadata: meta,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: AckWait,
		MaxDeliver: -1, MaxAckPending: -1, DeliverPolicy: jetstream.DeliverAllPolicy,
	}
}

// ensure creates the consumer, gives it the filters it lacks, and adopts what it
// has passed over. It reports whether there was anything to do.
func (c consumerSpec) ensure(ctx context.Context, js jetstream.JetStream) (changed bool, err error) {
	have, made, err := c.find(ctx, js)
	if err != nil || newer(have.Config) {
		return false, err
	}
	if fixedFault(have.Config) != "" {
		return true, c.remake(ctx, js, have) // a new consumer begins with the oldest message
	}
	updated, err := c.renew(ctx, js, have)
	if err != nil {
		return made || updated, err
	}
	rescued, err := c.rescue(ctx, js, have)
	return made || updated || rescued, err
}

// renew updates the consumer if it is not as it should be.
//
// A consumer never delivers what lies before the place that it has reached, so
// a filter added to a busy one misses the jobs that were published before. Worse,
// the server takes them for acknowledged as soon as another server leads: they are
// gone. So they are adopted before the filter is added, while the consumer is
// paused and passes over nothing more.
func (c consumerSpec) renew(ctx context.Context, js jetstream.JetStream, have *jetstream.ConsumerInfo) (updated bool, err error) {
	want := c.config()
	pending := strings.Fields(have.Config.Metadata[metaAdopt])
	for _, f := range want.FilterSubjects {
		if !slices.Contains(filtersOf(have.Config), f) && !slices.Contains(pending, f) {
			pending = append(pending, f)
		}
	}
	switch {
	case len(pending) > 0:
		resume, err := c.pause(ctx, js, have)
		if err == nil {
			err = c.extend(ctx, js, have.Config, pending)
		}
		return true, errors.Join(err, resume())
	case !sameConsumer(have.Config, want):
		return true, call.Err(ctx, "consumer.update", func() error { return update(ctx, js, c.Stream, have.Config, want) })
	}
	return false, nil
}

// adoptPause is how long a consumer is paused for at most while jobs are adopted:
// so long it stands still if this process ends meanwhile.
const adoptPause = time.Minute

// pause has the consumer deliver nothing for a while, and returns what ends that.
// One that an operator has paused for longer is left as it is.
func (c consumerSpec) pause(ctx context.Context, js jetstream.JetStream, have *jetstream.ConsumerInfo) (resume func() error, err error) {
	if have.Paused && have.PauseRemaining > adoptPause {
		return func() error { return nil }, nil
	}
	resume = func() error {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // also if ctx has ended
		defer cancel()
		return call.Err(late, "adopt.resume", func() error {
			var err error
			if have.Paused {
				_, err = js.PauseConsumer(late, c.Stream, c.Durable, *have.Config.PauseUntil)
			} else {
				_, err = js.ResumeConsumer(late, c.Stream, c.Durable)
			}
			return err
		})
	}
	until := have.TimeStamp.Add(adoptPause) // by the server's clock
	err = call.Err(ctx, "adopt.pause", func() error {
		_, err := js.PauseConsumer(ctx, c.Stream, c.Durable, until)
		return err
	})
	for err == nil { // in a cluster another server does it
		var now *jetstream.ConsumerInfo
		if now, err = ConsumerInfo(ctx, js, c.Stream, c.Durable); err == nil && (now.Paused || now.TimeStamp.After(until)) {
			break
		}
		err = errors.Join(err, pause.For(ctx, 10*time.Millisecond))
	}
	return resume, err
}

// extend adopts what the filters match that the consumer is to have besides, and
// adds them. Its metadata says so until it is finished, for the process that comes
// after a crash.
func (c consumerSpec) extend(ctx context.Context, js jetstream.JetStream, have jetstream.ConsumerConfig, filters []string) error {
	next := c.config()
	marked := c.config()
	marked.Metadata[metaAdopt] = strings.Join(filters, " ")
	if err := c.adoptAll(ctx, js, filters); err != nil {
		return err
	}
	if err := call.Err(ctx, "adopt.begin", func() error { return update(ctx, js, c.Stream, have, marked) }); err != nil {
		return err
	}
	now, err := ConsumerInfo(ctx, js, c.Stream, c.Durable)
	if err != nil {
		return err
	}
	if !now.Paused { // it took too long: the consumer may have passed over what came meanwhile
		if err := c.adoptAll(ctx, js, filters); err != nil {
			return err
		}
	}
	return call.Err(ctx, "adopt.end", func() error { return update(ctx, js, c.Stream, have, next) })
}

// adoptAll adopts all that filters match by now.
func (c consumerSpec) adoptAll(ctx context.Context, js jetstream.JetStream, filters []string) error {
	s, err := js.Stream(ctx, c.Stream)
	if err != nil {
		return err
	}
	return c.adopt(ctx, js, filters, s.CachedInfo().State.LastSeq)
}

// find returns the consumer, which it makes if there is none.
func (c consumerSpec) find(ctx context.Context, js jetstream.JetStream) (have *jetstream.ConsumerInfo, made bool, err error) {
	have, err = ConsumerInfo(ctx, js, c.Stream, c.Durable)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return have, false, err
	}
	created, err := call.Do(ctx, "consumer.create", func() (jetstream.Consumer, error) { return js.CreateConsumer(ctx, c.Stream, c.config()) })
	if errors.Is(err, jetstream.ErrConsumerExists) {
		have, err = ConsumerInfo(ctx, js, c.Stream, c.Durable)
		return have, false, err
	}
	if err != nil {
		return nil, false, c.rivals(ctx, js, err)
	}
	return created.CachedInfo(), true, nil
}

// update writes what Mulligan decides about a consumer over what is there.
func update(ctx context.Context, js jetstream.JetStream, stream string, have, want jetstream.ConsumerConfig) error {
	have.FilterSubject, have.FilterSubjects = "", want.FilterSubjects
	have.AckWait, have.MaxDeliver, have.MaxAckPending, have.BackOff = want.AckWait, want.MaxDeliver, want.MaxAckPending, nil
	have.HeadersOnly, have.InactiveThreshold = false, 0
	have.MaxRequestBatch, have.MaxRequestExpires, have.MaxRequestMaxBytes = 0, 0, 0
	have.PriorityPolicy, have.PriorityGroups, have.PinnedTTL = want.PriorityPolicy, nil, 0
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
	return slices.Equal(a, b) && ConsumerFault(have, b) == "" && have.Metadata[metaVersion] == want.Metadata[metaVersion]
}

// release takes this consumer's filters out of any other: on a work queue one
// subject has one consumer.
func (c consumerSpec) release(ctx context.Context, js jetstream.JetStream) error {
	all, err := consumersOf(ctx, js, c.Stream)
	if err != nil {
		return notProvisioned(err)
	}
	for _, info := range all {
		if info.Name == c.Durable || info.Config.Metadata[metaDownstream] == "" {
			continue
		}
		other := consumerSpec{Queue: Queue{c.Stream, info.Name, c.Root}, downstream: info.Config.Metadata[metaDownstream]}
		other.filters = slices.DeleteFunc(slices.Clone(filtersOf(info.Config)), func(f string) bool { return slices.Contains(c.filters, f) })
		if len(other.filters) == len(filtersOf(info.Config)) {
			continue
		}
		next := other.config()
		if left := info.Config.Metadata[metaAdopt]; left != "" {
			next.Metadata[metaAdopt] = left
		}
		if err := call.Err(ctx, "adopt.release", func() error { return update(ctx, js, c.Stream, info.Config, next) }); err != nil {
			return fmt.Errorf("take kinds from downstream %s: %w", other.downstream, err)
		}
	}
	return nil
}

// consumersOf are the consumers of a stream. The client's list has to be read to
// its end: what reads no further leaves a goroutine behind for ever.
func consumersOf(ctx context.Context, js jetstream.JetStream, stream string) (all []*jetstream.ConsumerInfo, err error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	list := s.ListConsumers(ctx)
	for info := range list.Info() {
		all = append(all, info)
	}
	return all, list.Err()
}

// adopt moves the messages of filters up to a place of the stream to the end of
// those that have come back: stored there first, then removed here.
func (c consumerSpec) adopt(ctx context.Context, js jetstream.JetStream, filters []string, reached uint64) error {
	for _, f := range filters {
		for seq := uint64(1); seq <= reached; {
			m, err := call.Do(ctx, "adopt.find", func() (*jetstream.RawStreamMsg, error) {
				return getMsg(ctx, js, c.Stream, msgAsk{Seq: seq, NextFor: f})
			})
			if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Sequence > reached {
				break
			}
			if err != nil {
				return err
			}
			if err := c.adoptOne(ctx, js, m); err != nil {
				return fmt.Errorf("adopt %s: %w", Address(c.Stream, m.Sequence), err)
			}
			seq = m.Sequence + 1
		}
	}
	return nil
}

func (c consumerSpec) adoptOne(ctx context.Context, js jetstream.JetStream, m *jetstream.RawStreamMsg) error {
	kind, token := SplitSubject(c.Root, m.Subject)
	msg := &nats.Msg{Subject: Subject(c.back, kind, SafeToken(token)), Header: m.Header, Data: m.Data}
	if c.Root != c.back {
		e, _ := OpenJob(kind, token, &nats.Msg{Header: m.Header, Data: m.Data}, m.Time) // malformed jobs move too: a worker spends them
		msg = e.Moved(msg.Subject)
	}
	for name := range msg.Header {
		if hasPrefix(name, natsPrefix) {
			delete(msg.Header, name)
		}
	}
	err := call.Err(ctx, "adopt.publish", func() error {
		_, err := js.PublishMsg(ctx, msg, jetstream.WithMsgID("adopt:"+MoveID(Address(c.Stream, m.Sequence), m.Time)))
		return err
	})
	if err != nil {
		return err
	}
	return call.Err(ctx, "adopt.delete", func() error {
		err := deleteMsg(ctx, js, c.Stream, m.Sequence)
		if err == nil {
			return nil
		}
		// Another process that adopts may have been faster.
		if _, gone := getMsg(ctx, js, c.Stream, msgAsk{Seq: m.Sequence}); errors.Is(gone, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
}
