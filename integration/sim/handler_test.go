package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
)

const timeout = 3 * time.Second // of one attempt, for every kind

var (
	errFlaky = mulligan.Typed("flaky", errors.New("flaky"))
	errLate  = mulligan.Typed("late", errors.New("the answer came too late"))
)

// handler does the jobs of a process.
func (w *world) handler(p *process) mulligan.Handler {
	return mulligan.HandlerFunc(func(ctx context.Context, j *mulligan.Job) (result []byte, err error) {
		k := w.keyOf(j)
		r := w.begin(p, j, k.Script)
		defer func() {
			if recovered := recover(); recovered != nil {
				w.end(r, fmt.Errorf("%v", recovered))
				panic(recovered)
			}
		}()
		result, err = call.Do(p.ctx, "handler", func() ([]byte, error) {
			if !k.Steps {
				return w.act(ctx, r, j, j.Key())
			}
			return w.inSteps(ctx, r, j)
		})
		w.end(r, err)
		return result, err
	})
}

func stepNames() []string { return []string{"first", "second"} }

// inSteps does the job in two steps, of which one fails, if any does.
func (w *world) inSteps(ctx context.Context, r *run, j *mulligan.Job) ([]byte, error) {
	honours := w.keyOf(j).Effect != mulligan.Once
	for i, name := range stepNames() {
		_, err := mulligan.Step(ctx, j, name, func(ctx context.Context) (string, error) {
			if (i == 1) == r.answer.Late {
				did, err := w.act(ctx, r, j, j.StepKey(name))
				return string(did), err
			}
			return w.do(j.StepKey(name), honours), nil
		})
		if err != nil {
			return nil, err
		}
	}
	return []byte("both steps"), nil
}

// act does what the run's answer says, with the effect behind a key if it comes
// to that.
func (w *world) act(ctx context.Context, r *run, j *mulligan.Job, downKey string) ([]byte, error) {
	effect := func() ([]byte, error) {
		r.process.await() // one that is dead has no effect
		return []byte(w.do(downKey, w.keyOf(j).Effect != mulligan.Once)), nil
	}
	a := r.answer
	switch a.What {
	case transient:
		return nil, errFlaky
	case tooLate:
		_, _ = effect()
		return nil, errLate
	case permanent:
		return nil, mulligan.Permanent(errFlaky)
	case after:
		return nil, mulligan.After(a.For, errFlaky)
	case snooze:
		return nil, mulligan.Snooze(a.For)
	case change:
		return nil, mulligan.Changed(fmt.Appendf(nil, "changed for attempt %d", r.attempt+1), mulligan.NotStarted(errFlaky))
	case changeTo:
		return nil, mulligan.Changed(j.Payload, mulligan.NotStarted(errFlaky))
	case unusable:
		return nil, mulligan.Unusable(errFlaky)
	case unstarted:
		return nil, mulligan.NotStarted(errFlaky)
	case refused:
		return nil, mulligan.RefusedCredential(errFlaky)
	case doubtful:
		return nil, fmt.Errorf("whatever it was: %w", mulligan.ErrInDoubt)
	case panics:
		panic("in the handler")
	case hang:
		<-ctx.Done()
		return nil, ctx.Err()
	case deaf:
		time.Sleep(timeout + a.For)
	case slow:
		time.Sleep(min(a.For, timeout*9/10))
	case poison:
		r.process.suffer(fault{What: crash})
		r.process.await()
	}
	return effect()
}
