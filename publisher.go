package mulligan

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// A Publisher stores jobs. Set its fields before the first call; it is safe for
// concurrent use. It watches the declared kinds for as long as its connection
// lives: make one for each connection and keep it.
type Publisher struct {
	// Conn is required.
	Conn *nats.Conn
	// Kinds are those that it may publish before a worker has declared them. The
	// declared ones it reads from the server, as they are now.
	Kinds []Kind
	// Topology names the streams; the zero Topology is the default.
	Topology Topology

	mu       sync.Mutex
	js       jetstream.JetStream
	kinds    map[string]Kind // its own
	declared map[string]Kind // by workers
	ledger   jetstream.KeyValue
	jobs     jetstream.Stream
}

// A Receipt says what became of a published job.
type Receipt struct {
	Kind, ID string
	// Seq is where the job lies in the stream of jobs, stored by this call or,
	// if it is a duplicate, before; zero if it is not there.
	Seq uint64
	// Duplicate: the key had been accepted before, and runs once.
	Duplicate bool
	// Unverified: nothing is left of the earlier job to compare payloads with.
	Unverified bool
	// State is Done, Spent or Dead if the key has ended, with its result or the
	// reason; a dead job runs again when an operator replays or resolves it.
	State  State
	Reason Reason
	Result *Result
}

// Ended reports whether the key had ended before this call.
func (r Receipt) Ended() bool { return r.State == Done || r.State == Spent || r.State == Dead }

// Publish stores one job and returns once the server has it. Publishing a key
// again stores nothing new while the first is queued or is done.
//
// It fails with [ErrUnknownKind], [ErrBadID], [ErrBadJob], [ErrNoKey],
// [ErrTooLarge], [ErrKeyConflict], [ErrStreamFull], [ErrNoTopology] or
// [ErrUnavailable], and then stored nothing; [ErrUnconfirmed] says that the server did not answer.
func (p *Publisher) Publish(ctx context.Context, job Job) (Receipt, error) {
	d, err := p.draft(ctx, &job)
	if err == nil && d.recorded {
		err = p.consult(ctx, d)
	}
	if err != nil || d.receipt.Ended() {
		return d.receipt, err
	}
	ack, err := p.store(ctx, d)
	return p.settle(ctx, d, ack, err)
}

func (p *Publisher) store(ctx context.Context, d *draft) (*jetstream.PubAck, error) {
	return call.Do(ctx, "publish.store", func() (*jetstream.PubAck, error) { return p.js.PublishMsg(ctx, d.msg) })
}

// A draft is a job ready to be stored.
type draft struct {
	job      Job
	msg      *nats.Msg
	receipt  Receipt
	recorded bool // if its key has ended the ledger says so, and the receipt is final
}

// draft checks a job and has its message ready.
func (p *Publisher) draft(ctx context.Context, job *Job) (*draft, error) {
	d := &draft{job: *job, receipt: Receipt{Kind: job.Kind, ID: job.ID}}
	if err := p.connect(ctx); err != nil {
		return d, err
	}
	kind, ok := p.kind(job.Kind)
	if !ok {
		var err error
		if kind, ok, err = p.lookUp(ctx, job.Kind); err != nil {
			return d, err
		}
	}
	if !ok {
		return d, fmt.Errorf("%w: %s; no worker has declared it, and it is not in the publisher's kinds", ErrUnknownKind, brief(job.Kind))
	}
	if err := d.check(kind, time.Now()); err != nil {
		return d, err
	}
	d.msg = &nats.Msg{Subject: Subject(p.Topology.JobsRoot(), job.Kind, Token(d.job.ID)), Header: encodeJob(&d.job), Data: job.Payload}
	d.msg.Header.Set(jetstream.MsgIDHeader, d.job.Kind+"/"+d.job.ID)
	if job.ID == "" {
		d.msg.Header.Set(headerGenerated, "true")
	}
	if size := headerSize(d.msg.Header); size > maxHeader {
		return d, fmt.Errorf("%w: headers of %d bytes, the limit is %d", ErrTooLarge, size, maxHeader)
	}
	if limit := p.Conn.MaxPayload() - moveHeaderSpace; wireSize(d.msg) > limit {
		return d, fmt.Errorf("%w: %d bytes with headers, the limit is %d", ErrTooLarge, wireSize(d.msg), limit)
	}
	d.recorded = kind.Effect.NeedsID() || kind.KeepResults && job.ID != ""
	return d, nil
}

// check validates the job and gives it an ID if it may have a random one.
func (d *draft) check(kind Kind, now time.Time) error {
	j := &d.job
	if j.ID == "" {
		if kind.Effect.NeedsID() {
			return fmt.Errorf("%w: kind %s is %s and needs an ID from its publisher", ErrNoKey, kind.Name, kind.Effect)
		}
		j.ID = nuid.Next()
		d.receipt.ID = j.ID
	}
	if err := checkID(j.ID); err != nil {
		return err
	}
	if err := checkTexts(j); err != nil {
		return err
	}
	if err := checkTaskRetries(j); err != nil {
		return err
	}
	if err := checkHeader(j.Header, len(j.Payload) == 0); err != nil {
		return err
	}
	if !j.Deadline.IsZero() && (!j.Deadline.After(now) || j.Deadline.After(now.Add(MaxDeadline))) {
		return fmt.Errorf("%w: deadline %s is not within the next 30 days", ErrBadJob, formatTime(j.Deadline))
	}
	deadline := j.Deadline
	if deadline.IsZero() {
		deadline = now.Add(DefaultDeadline)
	}
	if !j.NotBefore.Before(deadline) {
		return fmt.Errorf("%w: not-before %s is not before the deadline %s", ErrBadJob, formatTime(j.NotBefore), formatTime(deadline))
	}
	return nil
}

func checkHeader(h nats.Header, empty bool) error {
	for name, values := range h {
		if isReserved(name) {
			return fmt.Errorf("%w: header %.80q is reserved", ErrBadJob, name)
		}
		if usualName(name) != "" {
			return fmt.Errorf("%w: header %s has a field of its own; set that", ErrBadJob, name)
		}
		if !headerName.MatchString(name) {
			return fmt.Errorf("%w: header %.80q is not a name of letters, digits, - and _", ErrBadJob, name)
		}
		if empty && isStatus(name) {
			return errStatus
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n") {
				return fmt.Errorf("%w: header %s has a line end in its value", ErrBadJob, name)
			}
		}
	}
	return nil
}

// consult reads what the ledger knows of the key.
func (p *Publisher) consult(ctx context.Context, d *draft) error {
	rec, err := call.Do(ctx, "publish.look", func() (*Record, error) { return p.record(ctx, d.job.Kind, Token(d.job.ID)) })
	if rec == nil || err != nil {
		return err
	}
	if rec.Payload != FingerprintOf(d.job.Payload) {
		return fmt.Errorf("%w: %s %.80q has another payload; use a new ID, or send the same bytes", ErrKeyConflict, d.job.Kind, d.job.ID)
	}
	d.receipt.Duplicate = true
	if rec.Ended() {
		d.receipt.State, d.receipt.Reason, d.receipt.Result = rec.State, rec.Reason, rec.Result
	}
	return nil
}

// record reads the record of a key; nil if there is none.
func (p *Publisher) record(ctx context.Context, kind, token string) (*Record, error) {
	e, err := p.ledger.Get(ctx, RecordKey(kind, token))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: read the record of kind %s: %w", errAway, kind, err)
	}
	return DecodeRecord(e.Value())
}

// settle turns the server's answer into a receipt.
func (p *Publisher) settle(ctx context.Context, d *draft, ack *jetstream.PubAck, err error) (Receipt, error) {
	const tries = 5
	for try := 0; ; try++ {
		if err == nil && !ack.Duplicate {
			d.receipt.Seq = ack.Sequence
			return d.receipt, nil
		}
		if err != nil && !queuedAlready(err) {
			return d.receipt, fmt.Errorf("publish %s %.80q: %w", d.job.Kind, d.job.ID, publishError(err))
		}
		found, ferr := p.compare(ctx, d)
		if found || ferr != nil {
			return d.receipt, ferr
		}
		if err == nil {
			d.receipt.Duplicate, d.receipt.Unverified = true, true
			return d.receipt, nil
		}
		if try == tries {
			return d.receipt, fmt.Errorf("publish %s %.80q: %w", d.job.Kind, d.job.ID, publishError(err))
		}
		// The queued job that refused this one was acknowledged just now.
		if err := pause.For(ctx, time.Duration(1<<try)*5*time.Millisecond); err != nil {
			return d.receipt, fmt.Errorf("publish %s: %w: %w", d.job.Kind, ErrUnconfirmed, err)
		}
		ack, err = p.store(ctx, d)
	}
}

// compare fills the receipt of a duplicate from the job that is queued or the
// record of its key, and reports whether there was either.
func (p *Publisher) compare(ctx context.Context, d *draft) (found bool, err error) {
	queued, err := call.Do(ctx, "publish.compare", func() (*jetstream.RawStreamMsg, error) {
		return getMsg(ctx, p.js, p.Topology.JobsStream(), msgAsk{LastFor: d.msg.Subject})
	})
	switch {
	case err == nil && FingerprintOf(queued.Data) != FingerprintOf(d.job.Payload):
		return true, fmt.Errorf("%w: %s %.80q is queued with another payload; use a new ID, or send the same bytes", ErrKeyConflict, d.job.Kind, d.job.ID)
	case err == nil:
		d.receipt.Seq, d.receipt.Duplicate = queued.Sequence, true
		return true, nil
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return false, fmt.Errorf("%w: look for the queued job: %w", errAway, err)
	}
	if err := p.consult(ctx, d); err != nil {
		return true, err
	}
	return d.receipt.Duplicate, nil
}

// connect looks up what the publisher needs, once. The lock is not held while
// the server is asked: those who wait for it would outstay their own ctx.
func (p *Publisher) connect(ctx context.Context) error {
	p.mu.Lock()
	ready := p.jobs != nil
	p.mu.Unlock()
	if ready {
		return nil
	}
	kinds := map[string]Kind{}
	for _, k := range p.Kinds {
		n, err := k.Normal()
		if err != nil {
			return err
		}
		kinds[n.Name] = n
	}
	js, err := jetstream.New(p.Conn, jetstream.WithPublishAsyncTimeout(10*time.Second))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadJob, err)
	}
	ledger, err := js.KeyValue(ctx, p.Topology.LedgerBucket())
	if err != nil {
		return awayOr(notProvisioned(err))
	}
	jobs, err := js.Stream(ctx, p.Topology.JobsStream())
	if err != nil {
		return awayOr(notProvisioned(err))
	}
	// The watch lives as long as the connection.
	stop, err := p.Topology.WatchKinds(ctx, js, p.learn)
	if err != nil {
		return awayOr(err)
	}
	if p.use(js, kinds, ledger, jobs) { // the first of several is used by all
		stop()
	}
	return nil
}

// use keeps what was looked up, unless another call was faster.
func (p *Publisher) use(js jetstream.JetStream, kinds map[string]Kind, ledger jetstream.KeyValue, jobs jetstream.Stream) (late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jobs == nil {
		p.js, p.kinds, p.ledger, p.jobs = js, kinds, ledger, jobs
		return false
	}
	return true
}

// learn notes what a kind was declared as.
func (p *Publisher) learn(name string, k *Kind, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.declared == nil {
		p.declared = map[string]Kind{}
	}
	if delete(p.declared, name); k != nil {
		p.declared[name] = *k
	}
}

// lookUp reads a kind that the watch did not tell of: after the server was away
// it is late, and of a bucket that was made again it says nothing.
func (p *Publisher) lookUp(ctx context.Context, name string) (k Kind, ok bool, err error) {
	if ValidKindName(name) != nil {
		return k, false, nil
	}
	k, err = p.Topology.Kind(ctx, p.js, name)
	switch {
	case errors.Is(err, ErrUnknownKind):
		return k, false, nil
	case err != nil:
		return k, false, awayOr(err)
	}
	p.learn(name, &k, nil)
	return k, true, nil
}

// kind returns what a kind is. Where a worker and this publisher disagree
// whether it needs an ID, it does: the worker may run it as a side effect.
func (p *Publisher) kind(name string) (k Kind, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, has := p.kinds[name]
	declared, is := p.declared[name]
	if has && (!is || own.Effect.NeedsID() && !declared.Effect.NeedsID()) {
		return own, true
	}
	return declared, is
}

// errAway is a server that cannot be reached before anything was published.
var errAway = fmt.Errorf("%w; nothing was stored", ErrUnavailable)

func awayOr(err error) error {
	if errors.Is(err, ErrNoTopology) {
		return err
	}
	return fmt.Errorf("%w: %w", errAway, err)
}

// queuedAlready reports whether a publish was refused because a message waits
// on the same subject.
func queuedAlready(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && strings.Contains(api.Description, "per subject")
}

// flooded reports whether a publish was refused because too many wait for the stream.
func flooded(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeTooManyRequests
}

// Error codes of nats-server, see server/errors.json there.
const (
	codeAccountResources = 10002
	codeNoResources      = 10023
	codeNoMemory         = 10028
	codeNoStorage        = 10047
	codeTooLarge         = 10054
	codeStoreFailed      = 10077
	codeInProcess        = 10158 // a cluster is just storing a message with the same id
	codeTooManyRequests  = 10167 // as many publishes wait for the stream as may
)

func publishError(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api):
		switch api.ErrorCode {
		case codeStoreFailed, codeAccountResources, codeNoResources, codeNoMemory, codeNoStorage:
			return fmt.Errorf("%w: %w", ErrStreamFull, err)
		case codeTooLarge:
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		case codeTooManyRequests:
			return fmt.Errorf("%w: too many publishes wait for the stream of jobs: %w", errAway, err)
		case codeInProcess:
			return fmt.Errorf("%w: %w; publish it again with the same ID", ErrUnconfirmed, err)
		}
		if call.Unanswered(err) {
			return fmt.Errorf("%w: %w", errAway, err)
		}
		return err
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: the stream of jobs has no leader just now, or was deleted (then run `mulligan provision`): %w", errAway, err)
	}
	return fmt.Errorf("%w: %w; publish it again with the same ID", ErrUnconfirmed, err)
}

// wireSize is what the server counts against a stream's largest message.
func wireSize(m *nats.Msg) int64 {
	const frame = len("NATS/1.0\r\n\r\n")
	return int64(frame + headerSize(m.Header) + len(m.Data))
}
