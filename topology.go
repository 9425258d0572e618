package mulligan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
)

// topologyVersion is what Ensure writes. Raise it when a stream's or bucket's
// configuration changes; an older program then leaves a newer one's alone.
const topologyVersion = 1

const metaVersion = "mulligan.topology"

// A Topology names the streams and buckets and bounds them. A zero limit means
// the default when a stream is created, and leaves what is there otherwise.
type Topology struct {
	// Prefix begins every subject and bucket; streams have it in capitals.
	// Empty means mulligan.
	Prefix string
	// Replicas of every stream and bucket; zero creates one.
	Replicas int
	// JobsMaxBytes and DeadMaxBytes are where the streams of jobs and of dead
	// letters are full; zero creates them without a limit of their own.
	JobsMaxBytes, DeadMaxBytes int64
	// EventsMaxBytes bounds the stream of events; zero creates 256 MiB.
	EventsMaxBytes int64
}

const (
	letterAge       = 30 * 24 * time.Hour
	recordAge       = letterAge + MaxDeadline + 24*time.Hour // outlives deadline and letter
	eventAge        = 72 * time.Hour
	dedupeWindow    = 2 * time.Minute // the server remembers about 235 bytes an ID
	defaultEvents   = 256 << 20
	tombstoneAge    = time.Hour
	moveHeaderSpace = 64 << 10  // what moves add must fit beside the largest job
	minPayload      = 768 << 10 // of the server: the largest record has to fit
	replaySpace     = 1 << 10   // of it, what a replay adds when it publishes the job again
	recordSpace     = 160 << 10 // what a record holds besides results and a changed payload
)

// LargestResult is the largest MaxResult of a kind that a record takes on a
// server with this max_payload, in bytes.
func LargestResult(maxPayload int64) int {
	return int(maxPayload-recordSpace)*3/4 - MaxChanged // both as base64
}

var prefixName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// Validate reports what is wrong with t.
func (t Topology) Validate() error {
	if !prefixName.MatchString(t.prefix()) {
		return fmt.Errorf("prefix %.40q is not a lower-case word of at most 32 letters, digits, _ and -", t.Prefix)
	}
	if t.Replicas < 0 || t.Replicas > 5 {
		return fmt.Errorf("replicas %d is not between 1 and 5", t.Replicas)
	}
	if t.JobsMaxBytes < 0 || t.DeadMaxBytes < 0 || t.EventsMaxBytes < 0 {
		return errors.New("a stream's max bytes is negative; leave it out for no limit")
	}
	return nil
}

func (t Topology) prefix() string {
	if t.Prefix == "" {
		return "mulligan"
	}
	return t.Prefix
}

func (t Topology) stream(name string) string { return strings.ToUpper(t.prefix()) + "_" + name }

// JobsStream, RetriesStream, DeadStream and EventsStream name the streams.
func (t Topology) JobsStream() string { return t.stream("JOBS") }

// RetriesStream holds what waits for a retry or for a scheduler.
func (t Topology) RetriesStream() string { return t.stream("RETRIES") }

// DeadStream holds the dead letters.
func (t Topology) DeadStream() string { return t.stream("DEAD") }

// EventsStream holds copies of what happened, for observers.
func (t Topology) EventsStream() string { return t.stream("EVENTS") }

// LedgerBucket, BudgetBucket and KindsBucket name the key-value buckets.
func (t Topology) LedgerBucket() string { return t.prefix() + "_ledger" }

// BudgetBucket holds the retry budgets.
func (t Topology) BudgetBucket() string { return t.prefix() + "_budget" }

// KindsBucket holds what each kind is, as its workers declared it.
func (t Topology) KindsBucket() string { return t.prefix() + "_kinds" }

// JobsRoot, AtRoot, DueRoot, DeferredRoot, SpentRoot, DeadRoot and EventsRoot
// begin the subjects; kind and token follow.
func (t Topology) JobsRoot() string { return t.prefix() + ".jobs" }

// AtRoot begins the subjects of schedules.
func (t Topology) AtRoot() string { return t.prefix() + ".retry.at" }

// DueRoot begins the subjects of retries that are due.
func (t Topology) DueRoot() string { return t.prefix() + ".retry.due" }

// DeferredRoot begins the subjects of deferred jobs that are due and are no
// retries: they are pulled without a token of their downstream.
func (t Topology) DeferredRoot() string { return t.prefix() + ".retry.deferred" }

// SpentRoot begins the subjects of spent jobs.
func (t Topology) SpentRoot() string { return t.prefix() + ".retry.spent" }

// DeadRoot begins the subjects of dead letters.
func (t Topology) DeadRoot() string { return t.prefix() + ".dead" }

// EventsRoot begins the subjects of events.
func (t Topology) EventsRoot() string { return t.prefix() + ".events" }

// Subject joins a root, a kind and a token.
func Subject(root, kind, token string) string { return root + "." + kind + "." + token }

// Ensure creates the streams and buckets that are missing and updates in place
// those that an older program made. What a newer program made stays as it is.
// It is idempotent, and several processes may call it at once.
func (t Topology) Ensure(ctx context.Context, js jetstream.JetStream) error {
	if err := t.Validate(); err != nil {
		return err
	}
	limit := js.Conn().MaxPayload()
	if limit < minPayload {
		return fmt.Errorf("the server's max_payload is %d bytes; set it to %d or more", limit, minPayload)
	}
	for _, cfg := range t.streams(limit) {
		if err := ensureStream(ctx, js, cfg); err != nil {
			return fmt.Errorf("ensure stream %s: %w", cfg.Name, err)
		}
	}
	for _, cfg := range t.buckets() {
		if err := t.ensureBucket(ctx, js, cfg); err != nil {
			return fmt.Errorf("ensure bucket %s: %w", cfg.Bucket, err)
		}
	}
	_, err := t.MendScheduler(ctx, js)
	return err
}

// streams lists the wanted configurations. A limit of zero stands for "as it
// is, or the default".
func (t Topology) streams(maxPayload int64) []jetstream.StreamConfig {
	meta, direct := map[string]string{metaVersion: strconv.Itoa(topologyVersion)}, readsDirectly(t.Replicas)
	return []jetstream.StreamConfig{{
		Name: t.JobsStream(), Subjects: []string{t.JobsRoot() + ".>"}, Replicas: t.Replicas, Metadata: meta,
		Description: "jobs to run, one message per subject", Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
		MaxMsgsPerSubject: 1, DiscardNewPerSubject: true, MaxBytes: t.JobsMaxBytes, Duplicates: dedupeWindow, AllowDirect: direct,
		// Refuse here what could not be moved later. Publishers keep below by what
		// a replay adds.
		MaxMsgSize: int32(maxPayload - moveHeaderSpace + replaySpace),
	}, {
		Name: t.RetriesStream(), Subjects: []string{t.prefix() + ".retry.>"}, Replicas: t.Replicas, Metadata: meta,
		Description: "retries waiting, retries due, and spent jobs", Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardOld,
		AllowMsgSchedules: true, Duplicates: dedupeWindow, AllowDirect: direct,
	}, {
		Name: t.DeadStream(), Subjects: []string{t.DeadRoot() + ".>"}, Replicas: t.Replicas, Metadata: meta,
		Description: "dead letters", Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxMsgsPerSubject: 1, MaxAge: letterAge, MaxBytes: t.DeadMaxBytes, Duplicates: dedupeWindow, AllowDirect: direct,
	}, {
		Name: t.EventsStream(), Subjects: []string{t.EventsRoot() + ".>"}, Replicas: t.Replicas, Metadata: meta,
		Description: "copies of what happened, for observers", Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: eventAge, MaxBytes: t.EventsMaxBytes, Duplicates: dedupeWindow, AllowDirect: direct,
	}}
}

func (t Topology) buckets() []jetstream.KeyValueConfig {
	meta := map[string]string{metaVersion: strconv.Itoa(topologyVersion)}
	return []jetstream.KeyValueConfig{
		{Bucket: t.LedgerBucket(), Description: "the record of each key", TTL: recordAge, Replicas: t.Replicas, Metadata: meta},
		{Bucket: t.BudgetBucket(), Description: "retry budgets", LimitMarkerTTL: tombstoneAge, Replicas: t.Replicas, Metadata: meta},
		{Bucket: t.KindsBucket(), Description: "kinds as their workers declared them", Replicas: t.Replicas, Metadata: meta},
	}
}

func ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if want.MaxBytes == 0 && strings.HasSuffix(want.Name, "_EVENTS") {
			want.MaxBytes = defaultEvents
		}
		s, err = call.Do(ctx, "stream.create", func() (jetstream.Stream, error) { return js.CreateStream(ctx, want) })
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			s, err = js.Stream(ctx, want.Name) // another process was faster
		}
	}
	if err != nil {
		return err
	}
	have := s.CachedInfo().Config
	next, changed := merge(have, want)
	if !changed {
		return nil
	}
	return updateStream(ctx, js, next)
}

func updateStream(ctx context.Context, js jetstream.JetStream, next jetstream.StreamConfig) error {
	return call.Err(ctx, "stream.update", func() error {
		_, err := js.UpdateStream(ctx, next)
		return err
	})
}

// readsDirectly says whether any server that has a replica may answer reads. One may
// lag behind: a key that is done would run again, and a letter not be found.
func readsDirectly(replicas int) bool { return replicas <= 1 }

// merge applies to have what want asks for, and reports whether that changes
// anything. What a newer version wrote is left alone.
func merge(have, want jetstream.StreamConfig) (next jetstream.StreamConfig, changed bool) {
	if v, _ := strconv.Atoi(have.Metadata[metaVersion]); v > topologyVersion {
		return have, false
	}
	next = have
	next.Subjects, next.Description = want.Subjects, want.Description
	next.Discard, next.DiscardNewPerSubject = want.Discard, want.DiscardNewPerSubject
	next.MaxAge, next.Duplicates = want.MaxAge, want.Duplicates
	next.AllowMsgSchedules = want.AllowMsgSchedules
	if want.MaxMsgsPerSubject > 0 {
		next.MaxMsgsPerSubject = want.MaxMsgsPerSubject
	}
	if want.MaxMsgSize > 0 {
		next.MaxMsgSize = want.MaxMsgSize
	}
	if want.MaxBytes > 0 {
		next.MaxBytes = want.MaxBytes
	}
	if want.Replicas > 0 {
		next.Replicas = want.Replicas
	}
	next.AllowDirect = readsDirectly(next.Replicas)
	next.Metadata = maps.Clone(have.Metadata)
	if next.Metadata == nil {
		next.Metadata = map[string]string{}
	}
	maps.Copy(next.Metadata, want.Metadata)
	return next, !reflect.DeepEqual(have, next)
}

// ensureBucket creates a bucket, or updates the stream that is behind it.
func (t Topology) ensureBucket(ctx context.Context, js jetstream.JetStream, want jetstream.KeyValueConfig) error {
	s, err := js.Stream(ctx, "KV_"+want.Bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = call.Do(ctx, "bucket.create", func() (jetstream.KeyValue, error) { return js.CreateKeyValue(ctx, want) })
		if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
			return err
		}
		s, err = js.Stream(ctx, "KV_"+want.Bucket)
	}
	if err != nil {
		return err
	}
	cfg := s.CachedInfo().Config
	stream := cfg
	stream.MaxAge, stream.Replicas, stream.Metadata = want.TTL, want.Replicas, want.Metadata
	stream.Description, stream.MaxBytes = want.Description, 0
	next, changed := merge(cfg, stream)
	if !changed {
		return nil
	}
	return updateStream(ctx, js, next)
}
