package consumer

import (
	"context"
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/clock"
)

// A Rehearsal is what a worker would make of one attempt, without a server.
type Rehearsal struct {
	// Verb is ack, retry, defer or spend.
	Verb string
	// Reason is why it is deferred or spent.
	Reason mulligan.Reason
	// Delay before the next attempt, without jitter's extremes: u is 0.5.
	Delay time.Duration
	// Changed is the payload of the next attempt, if it asked for another.
	Changed []byte
	// Result and Err are what the handler returned; ErrorType is Err's.
	Result    []byte
	Err       error
	ErrorType string
	// Tries is how many attempts this was: one, but none if it is deferred, and one
	// more for each retry by [mulligan.Policy.Do].
	Tries int
	// Steps has the steps of a keyed or once job. Set it as the next attempt's
	// [mulligan.Job.Steps], so that what is done is not repeated.
	Steps mulligan.Steps
}

// Rehearse runs a handler on a job and judges the outcome by the rules that a
// worker goes by. The job's Attempt is the number of this call; zero means the
// first. Budgets, deadlines and the time of earlier attempts are left out. Calls
// by [mulligan.Policy.Do] in it are tried again as in a worker, and sleep between.
func Rehearse(ctx context.Context, kind mulligan.Kind, h mulligan.Handler, job mulligan.Job) (Rehearsal, error) {
	k, err := kind.Normal()
	if err != nil {
		return Rehearsal{}, err
	}
	if job.ID == "" && k.Effect.NeedsID() {
		return Rehearsal{}, fmt.Errorf("%w: kind %s is %s", mulligan.ErrNoKey, k.Name, k.Effect)
	}
	if job.ID != "" {
		if _, err := mulligan.ParseToken(mulligan.Token(job.ID)); err != nil {
			return Rehearsal{}, err
		}
	}
	job.Kind, job.Attempt, job.AttemptsMax = k.Name, max(job.Attempt, 1), k.Policy.Attempts
	kept, _ := job.Steps.(*rehearsed) // of an earlier attempt
	if kept == nil {
		kept = rehearse(k)
	}
	kept.again()
	kept.rec.Payload = mulligan.FingerprintOf(job.Payload)
	if job.Steps = nil; k.Effect != mulligan.Pure {
		job.Steps = kept
	}
	calls := &calls{
		d: &delivery{facts: facts{effect: k.Effect, deadline: time.Now().Add(mulligan.DefaultDeadline)}}, steps: &kept.steps,
		clock: new(clock.Clock), started: time.Now(), retries: k.Policy.Attempts - job.Attempt, total: k.Policy.Total,
	}
	e := ending{facts: facts{effect: k.Effect}, started: calls.started}
	var result []byte
	result, e.err = new(Worker).call(calls.in(ctx), h, &job, k.Policy.Timeout)
	e.called = calls.finish(e.err)
	e.took = time.Since(e.started) - e.waited
	e.stepped, _ = kept.used()
	v := k.Policy.Judge(e.attempt(&kept.rec, job.Attempt+e.tries()-1), e.err, mulligan.Chance{U: 0.5, V: 0.5})
	tries := e.tries()
	if v.Verb == deferred {
		tries--
	}
	return Rehearsal{Verb: string(v.Verb), Reason: v.Reason, Delay: v.Delay, Changed: v.Changed, Result: result, Err: e.err, ErrorType: v.ErrorType, Tries: tries, Steps: job.Steps}, nil
}
