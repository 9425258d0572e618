package witness

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// A PublisherConfig is what a publisher of the run needs to know.
type PublisherConfig struct {
	Seed    uint64
	Name    string // the number at its end says how it publishes
	Servers []string
	Rate    float64 // jobs per second
	Log     string  // path
	Load            // what it does besides under load
}

// The words of a publisher about a job.
const (
	Trying  = "trying"  // it is about to be sent
	Acked   = "acked"   // the server has it, or had it before
	Refused = "refused" // it was told that nothing was stored
	Unsure  = "unsure"  // nobody knows: it is sent again
)

// Published is a publisher's line about one job.
type Published struct {
	What    string `json:"what"`
	N       int    `json:"n"`
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Payload string `json:"payload"` // its fingerprint
	Size    int    `json:"size"`
	Variant int    `json:"variant,omitempty"` // over zero: another payload under a key that has one
	User    string `json:"user,omitempty"`
	Task    string `json:"task,omitempty"`
	// Wait and Within become a time when the job is first tried.
	Wait      time.Duration `json:"wait_ns,omitempty"`
	Within    time.Duration `json:"within_ns,omitempty"`
	NotBefore time.Time     `json:"not_before,omitzero"`
	Deadline  time.Time     `json:"deadline,omitzero"`
	// The answer.
	Duplicate bool           `json:"duplicate,omitempty"`
	State     mulligan.State `json:"state,omitempty"`
	Error     string         `json:"error,omitempty"`
	// Took is how long this answer took; of jobs that were sent together, all of them.
	Took time.Duration `json:"took_ns,omitempty"`
	// Status and RetryAfter are an answer of HTTP.
	Status     int    `json:"status,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
}

// afterUpgrade is when publishers begin with the kind of version 2. As long as no
// worker has declared it they are refused.
const afterUpgrade = 15 * time.Second

// publisher is the role.
type publisher struct {
	cfg   PublisherConfig
	log   *journal
	style style
	js    jetstream.JetStream
	lib   []*mulligan.Publisher // on connections of their own
	http  http.Client
	busy  sync.WaitGroup
	room  chan struct{} // for a job on its way
	full  atomic.Bool   // the stream of jobs, as far as Load.Below says
	fatal context.CancelCauseFunc
}

// Publisher publishes jobs until ctx ends. One that ran before goes on: what was
// tried and never answered is published again first, under its key.
func Publisher(ctx context.Context, cfg PublisherConfig) error {
	log, past, err := openJournal("publisher", cfg.Log)
	if err != nil {
		return err
	}
	defer log.close()
	ctx, fatal := context.WithCancelCause(ctx)
	p := &publisher{cfg: cfg, log: log, style: styleOf(cfg.Name), room: make(chan struct{}, max(64, cfg.Room)), fatal: fatal}
	defer fatal(nil)
	for range 2 {
		nc, err := dial(cfg.Servers)
		if err != nil {
			return err
		}
		defer nc.Close()
		if p.js, err = jetstream.New(nc); err != nil {
			return err
		}
		p.lib = append(p.lib, &mulligan.Publisher{Conn: nc, Kinds: declared()})
	}
	p.http.Transport = &http.Transport{MaxIdleConnsPerHost: cap(p.room)}
	next, open := unanswered(past)
	if cfg.Below > 0 {
		p.busy.Go(func() { p.watch(ctx) })
	}
	p.run(ctx, next, open)
	p.busy.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// dial connects for good: a server that is away comes back.
func dial(servers []string) (*nats.Conn, error) {
	return nats.Connect(strings.Join(servers, ","), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond),
		nats.RetryOnFailedConnect(true), nats.PingInterval(5*time.Second), nats.Timeout(2*time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}

// declared are the kinds that a publisher may publish before a worker came.
func declared() (all []mulligan.Kind) {
	for _, k := range kinds() {
		if k.version == 1 {
			all = append(all, mulligan.Kind{Name: k.name, Effect: k.effect, Downstream: k.downstream,
				Policy: mulligan.Policy{Attempts: k.attempts, Total: k.total, FirstDelay: k.first, MaxDelay: k.max, Timeout: callTimeout}})
		}
	}
	return all
}

// unanswered returns the number of the next job, and what was tried and of which
// nobody knows whether it was stored.
func unanswered(past []Line) (next int, open []Published) {
	left := map[string]Published{}
	for _, l := range past {
		if l.Published == nil {
			continue
		}
		p := *l.Published
		next = max(next, p.N+1)
		switch name := p.Kind + "/" + p.ID + "/" + p.Payload; p.What {
		case Trying:
			left[name] = p
		case Acked, Refused:
			delete(left, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		open = append(open, left[name])
	}
	return next, open
}

func (p *publisher) run(ctx context.Context, next int, open []Published) {
	for i := range open {
		p.begin(ctx, func() { p.publish(ctx, p.lib[0], []Published{open[i]}) })
	}
	batch := 1
	if p.style == many {
		batch = 8
	}
	tick := time.NewTicker(time.Duration(float64(batch) * float64(time.Second) / p.cfg.Rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if p.full.Load() {
			continue
		}
		late := float64(next)/p.cfg.Rate > afterUpgrade.Seconds() && p.style != stranger
		var jobs []planned
		for range batch {
			jobs = append(jobs, draw(p.cfg, next, late))
			next++
		}
		p.begin(ctx, func() { p.do(ctx, jobs) })
	}
}

// begin does one thing beside the others, as soon as there is room.
func (p *publisher) begin(ctx context.Context, do func()) {
	select {
	case p.room <- struct{}{}:
	case <-ctx.Done():
		return
	}
	p.busy.Go(func() {
		defer func() { <-p.room }()
		do()
	})
}

// do publishes jobs that were drawn together; an eager publisher does more.
func (p *publisher) do(ctx context.Context, jobs []planned) {
	var all []Published
	now := time.Now()
	for _, j := range jobs {
		if j.Wait > 0 {
			j.NotBefore = now.Add(j.Wait)
		}
		if j.Within > 0 {
			j.Deadline = now.Add(j.Within)
		}
		all = append(all, j.Published)
	}
	j := jobs[0]
	if p.style != eager {
		p.publish(ctx, p.lib[0], all)
		if p.style == stranger && j.conflict && pause(ctx, j.againAfter) { // nobody tells a stranger: a letter does
			p.publish(ctx, p.lib[1], []Published{other(p.cfg.Seed, all[0])})
		}
		return
	}
	var twice sync.WaitGroup
	if j.twice {
		twice.Go(func() { p.publish(ctx, p.lib[1], all) })
	}
	p.publish(ctx, p.lib[0], all)
	twice.Wait()
	if j.conflict {
		p.publish(ctx, p.lib[1], []Published{other(p.cfg.Seed, all[0])})
	}
	if j.again && pause(ctx, j.againAfter) {
		p.publish(ctx, p.lib[1], all)
	}
}

// publish sends jobs until each was answered. What is unsure is sent again. Others
// may publish the same jobs beside it: it notes what it hears in a copy.
func (p *publisher) publish(ctx context.Context, lib *mulligan.Publisher, jobs []Published) {
	jobs = slices.Clone(jobs)
	for try := 1; len(jobs) > 0; try++ {
		for i := range jobs {
			if !p.tell(jobs[i], Trying) {
				return
			}
		}
		var left []Published
		for i, err := range p.send(ctx, lib, jobs) {
			switch {
			case err == nil:
				p.tell(jobs[i], Acked)
			case definite(err), p.cfg.Sheds && turnedAway(err):
				jobs[i].Error = err.Error()
				p.tell(jobs[i], Refused)
			default:
				jobs[i].Error = err.Error()
				p.tell(jobs[i], Unsure)
				left = append(left, jobs[i])
			}
		}
		if jobs = left; len(jobs) > 0 && !pause(ctx, time.Duration(min(try, 10))*200*time.Millisecond) {
			return
		}
	}
}

// send sends jobs once, notes the answers in them and returns the errors.
func (p *publisher) send(ctx context.Context, lib *mulligan.Publisher, jobs []Published) []error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	errs, began := make([]error, len(jobs)), time.Now()
	note := func(i int, r mulligan.Receipt, err error) {
		jobs[i].Duplicate, jobs[i].State, jobs[i].Took, errs[i] = r.Duplicate, r.State, time.Since(began), err
	}
	switch p.style {
	case stranger:
		for i := range jobs {
			errs[i] = p.strange(ctx, &jobs[i])
		}
	case many:
		var drafts []mulligan.Job
		for i := range jobs {
			drafts = append(drafts, p.job(&jobs[i]))
		}
		for i, o := range lib.PublishMany(ctx, drafts) {
			note(i, o.Receipt, o.Err)
		}
	default:
		for i := range jobs {
			if p.cfg.URL != "" && p.style == one {
				r, err := p.post(ctx, &jobs[i])
				note(i, r, err)
				continue
			}
			r, err := lib.Publish(ctx, p.job(&jobs[i]))
			note(i, r, err)
		}
	}
	return errs
}

func (p *publisher) job(j *Published) mulligan.Job {
	return mulligan.Job{Kind: j.Kind, ID: j.ID, User: j.User, Task: j.Task, Payload: payload(p.cfg.Seed, j), NotBefore: j.NotBefore, Deadline: j.Deadline}
}

// strange publishes as the README says that any NATS client may.
func (p *publisher) strange(ctx context.Context, j *Published) error {
	m := nats.NewMsg("mulligan.jobs." + j.Kind + "." + mulligan.Token(j.ID))
	m.Data = payload(p.cfg.Seed, j)
	for name, value := range map[string]string{"mulligan-user": j.User, "MULLIGAN-TASK": j.Task} { // in any case
		if value != "" {
			m.Header[name] = []string{value}
		}
	}
	for name, at := range map[string]time.Time{"Mulligan-Deadline": j.Deadline, "Mulligan-Not-Before": j.NotBefore} {
		if !at.IsZero() {
			m.Header.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	id := j.Kind + "/" + j.ID
	if j.Variant > 0 { // one that has no idea of what it publishes
		id += fmt.Sprint("/", j.Variant)
	}
	ack, err := p.js.PublishMsg(ctx, m, jetstream.WithMsgID(id))
	var api *jetstream.APIError
	if errors.As(err, &api) && strings.Contains(api.Description, "per subject") {
		j.Duplicate, err = true, nil // an earlier try of this publisher is queued
	}
	if api != nil && err != nil && strings.Contains(api.Description, "maximum bytes") {
		err = fmt.Errorf("%w: %w", errTurnedAway, err)
	}
	if err == nil && ack != nil {
		j.Duplicate = ack.Duplicate
	}
	return err
}

// definite reports whether an error says that nothing was stored, and that trying
// again would not help.
func definite(err error) bool {
	for _, e := range []error{mulligan.ErrUnknownKind, mulligan.ErrBadID, mulligan.ErrBadJob, mulligan.ErrNoKey, mulligan.ErrTooLarge, mulligan.ErrKeyConflict} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// tell writes down a word about a job; without its log the publisher must end.
func (p *publisher) tell(j Published, what string) bool {
	if j.What = what; what == Trying {
		j.Duplicate, j.State, j.Error, j.Took, j.Status, j.RetryAfter = false, "", "", 0, 0, ""
	}
	_, err := p.log.write(Line{Published: &j})
	if err != nil {
		p.fatal(fmt.Errorf("publisher %s: %w", p.cfg.Name, err))
	}
	return err == nil
}

// pause waits, and reports whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
