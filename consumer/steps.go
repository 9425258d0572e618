package consumer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nuid"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/clock"
)

// steps keeps the steps of one attempt's job in the record of its key. It
// implements [mulligan.Steps] and is safe for concurrent use. A pure job has none,
// and a nil *steps.
type steps struct {
	effect mulligan.Effect
	limit  int // of all results together, in bytes
	clock  *clock.Clock
	// update changes the record by compare-and-set, under the name of the call,
	// and owns reports whether the record's start is this attempt's.
	update func(ctx context.Context, name call.Update, apply func(r *mulligan.Record) (store bool)) error
	owns   func(r *mulligan.Record) bool

	mu    sync.Mutex
	runs  map[string]string // of the steps that this attempt began
	ended map[string]bool   // those whose end it recorded
	open  map[string]bool   // those that it began and whose end it did not record
	any   bool              // the attempt uses steps
	lost  bool              // another delivery of the message has taken over
}

// errSuperseded ends an attempt whose message was given to another worker, since
// this one was too slow, and which goes on there behind the last step.
var errSuperseded = fmt.Errorf("another worker has taken over: %w", mulligan.ErrInDoubt)

// Begin looks up what is known of a step. Of a once job the beginning is in the
// record before the function is called, and only the attempt whose start is
// there may begin one: two that are alive at once never begin the same.
func (s *steps) Begin(ctx context.Context, name string) (known *mulligan.Result, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err // too late to begin anything
	}
	if s.done(name) {
		return nil, mulligan.Permanent(mulligan.Typed("bad_step", fmt.Errorf("step %s was done in this attempt already: give each step a name of its own", name)))
	}
	run := nuid.Next()
	var refused error
	err = s.update(ctx, "step.begin", func(r *mulligan.Record) (store bool) {
		known, store, refused = s.begin(r, name, run)
		return store
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use()
	s.lost = s.lost || refused == errSuperseded
	if err == nil && refused == nil && known == nil {
		s.runs[name], s.open[name] = run, true
	}
	if err == nil {
		err = refused
	}
	return known, err
}

// use notes that the attempt uses steps; most use none.
func (s *steps) use() {
	if s.any = true; s.runs == nil {
		s.runs, s.ended, s.open = map[string]string{}, map[string]bool{}, map[string]bool{}
	}
}

// begin notes in the record that a step begins, or returns what is known of it.
func (s *steps) begin(r *mulligan.Record, name, run string) (known *mulligan.Result, store bool, refused error) {
	had := r.Step(name)
	marks := s.effect == mulligan.Once
	if marks && s.owns(r) && !r.Start.Stepped {
		r.Start.Stepped, store = true, true
	}
	switch {
	case had != nil && had.Result != nil:
		return had.Result, store, nil
	case r.State == mulligan.Done: // by hand, or by another attempt that had other steps
		return nil, false, fmt.Errorf("step %s: the key is done", name)
	case had == nil && len(r.Steps) >= mulligan.MaxSteps:
		return nil, false, mulligan.Permanent(mulligan.Typed("bad_step", fmt.Errorf("step %s is one of more than %d", name, mulligan.MaxSteps)))
	case !marks || had != nil && had.Run == run: // stored before; the answer was lost
		return nil, store, nil
	case !s.owns(r):
		return nil, true, errSuperseded // stored as it is: what was read may be from before its start
	case had != nil && had.Open():
		return nil, store, fmt.Errorf("step %s began at %s and its end is not known: %w", name, had.Begun.UTC().Format(time.RFC3339Nano), mulligan.ErrInDoubt)
	}
	begun := step(r, name)
	begun.Begun, begun.Run = s.clock.Now(), run
	return nil, true, nil
}

func (s *steps) done(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[name]
}

// End records a result: the first to be recorded stands.
func (s *steps) End(ctx context.Context, name string, result []byte) (stands *mulligan.Result, err error) {
	ended := mulligan.NewResult(result, s.clock.Now())
	err = s.update(ctx, "step.end", func(r *mulligan.Record) (store bool) {
		at := step(r, name)
		if at.Result != nil {
			stands = at.Result
			return false
		}
		at.Result, at.Run = ended.Within(s.limit-kept(r)), ""
		stands = at.Result
		return true
	})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.use()
		s.ended[name] = true
		delete(s.open, name)
	}
	return stands, err
}

// Fail lets a step begin anew whose effect certainly did not happen, if it was
// this attempt that began it.
func (s *steps) Fail(ctx context.Context, name string, cause error) error {
	if s.effect != mulligan.Once || !mulligan.MeaningOf(cause).NotStarted {
		return cause
	}
	s.mu.Lock()
	run := s.runs[name]
	s.mu.Unlock()
	err := s.update(ctx, "step.fail", func(r *mulligan.Record) (store bool) {
		had := r.Step(name)
		if had == nil || !had.Open() || had.Run != run {
			return false
		}
		had.Begun, had.Run = time.Time{}, ""
		return true
	})
	if err != nil { // the step stays begun, and the job is in doubt
		return fmt.Errorf("%w (and %w)", cause, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, name)
	return cause
}

// again says that a part of the attempt runs again: what it has done of its steps
// is not done twice by that.
func (s *steps) again() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.ended)
}

// safe reports whether all that must not happen twice is in steps, and none is
// open: whether what runs just now may be repeated.
func (s *steps) safe() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.any && len(s.open) == 0
}

// used reports whether the attempt used steps, and whether another delivery of
// the message has taken over. That one answers for the message then: this
// attempt's end is nobody's.
func (s *steps) used() (stepped, lost bool) {
	if s == nil {
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.any, s.lost
}

// steps of a delivery's job are kept also when the attempt's time is over: what
// has happened must be recorded.
func (w *Worker) steps(d *delivery, limit int) *steps {
	s := &steps{effect: d.effect, limit: limit, clock: &w.clock}
	s.owns = func(r *mulligan.Record) bool {
		return r.State == mulligan.Live && r.Open() != nil && r.Start.Delivery == d.start
	}
	s.update = func(ctx context.Context, name call.Update, apply func(r *mulligan.Record) bool) error {
		ctx, cancel := afterwards(ctx)
		defer cancel()
		conflict := false
		err := w.ledger.Update(ctx, name, d.env.RecordKey(), func(r *mulligan.Record) bool {
			if conflict = r.State != "" && r.Payload != d.payload; conflict {
				return false
			}
			begin(r, d.facts)
			return apply(r)
		})
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case conflict:
			return mulligan.Permanent(mulligan.Typed("key_conflict", fmt.Errorf("%s: the key belongs to another payload", name)))
		}
		return nil
	}
	return s
}

// rehearsed steps are kept in a record of their own, in memory.
type rehearsed struct {
	steps
	mu  sync.Mutex
	rec mulligan.Record
}

func rehearse(k mulligan.Kind) *rehearsed {
	r := &rehearsed{}
	r.effect, r.limit, r.clock = k.Effect, k.MaxResult, new(clock.Clock)
	r.rec.Start = &mulligan.Start{}
	r.owns = func(*mulligan.Record) bool { return true }
	r.update = func(_ context.Context, _ call.Update, apply func(r *mulligan.Record) bool) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		apply(&r.rec)
		return nil
	}
	return r
}

// step returns the named step of the record, made if it is not there.
func step(r *mulligan.Record, name string) *mulligan.StepRecord {
	if had := r.Step(name); had != nil {
		return had
	}
	r.Steps = append(r.Steps, mulligan.StepRecord{Name: name})
	return &r.Steps[len(r.Steps)-1]
}
