package mulligan_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

var (
	errFlaky  = errors.New("flaky")
	published = mulligan.FingerprintOf([]byte("published"))
)

func policy() mulligan.Policy {
	p, err := mulligan.Policy{}.Normal()
	if err != nil {
		panic(err)
	}
	return p
}

func TestJudge(t *testing.T) {
	const ms = time.Millisecond
	changed := func(s string) error { return mulligan.Changed([]byte(s), errFlaky) }
	pure := mulligan.Ended{Number: 1, Effect: mulligan.Pure, Tried: []mulligan.Fingerprint{published}}
	keyed := mulligan.Ended{Number: 1, Effect: mulligan.Keyed, Tried: []mulligan.Fingerprint{published}}
	at := func(n int, spent time.Duration) mulligan.Ended {
		return mulligan.Ended{Number: n, Spent: spent, Effect: mulligan.Pure, Tried: []mulligan.Fingerprint{published}}
	}
	once := mulligan.Ended{Number: 1, Effect: mulligan.Once}
	noKey := mulligan.Ended{Number: 1, Effect: mulligan.Keyed, NoKey: true}
	called := func(why mulligan.Reason, err error) error {
		return &mulligan.CallError{Reason: why, Attempts: 1, Err: err}
	}
	hinted := func(left time.Duration, err error) error {
		return &mulligan.CallError{Reason: mulligan.TimeExhausted, Attempts: 1, Err: err, Hint: left}
	}
	twice := pure
	twice.Tried = append(twice.Tried, mulligan.FingerprintOf([]byte("b")), mulligan.FingerprintOf([]byte("c")))
	hintLeft, uncalled, begun := pure, pure, once
	hintLeft.Hint, uncalled.Uncalled, begun.Begun = 3*time.Second, true, true
	begunInSteps := begun
	begunInSteps.Stepped = true
	uncalled.Number = 4
	waited := func(times int) mulligan.Ended { return mulligan.Ended{Number: 4, Deferred: times} }
	for _, tt := range []struct {
		name   string
		a      mulligan.Ended
		err    error
		verb   mulligan.Verb
		reason mulligan.Reason
		delay  time.Duration
	}{
		{"no error is acknowledged", pure, nil, mulligan.Ack, "", 0},
		{"a transient error is retried after the first delay", pure, errFlaky, mulligan.Retry, "", 100 * ms},
		{"each retry doubles the delay", at(3, 0), errFlaky, mulligan.Retry, "", 400 * ms},
		{"the last attempt is spent", at(4, 0), errFlaky, mulligan.Spend, mulligan.AttemptsExhausted, 0},
		{"one beyond the last is spent too", at(5, 0), errFlaky, mulligan.Spend, mulligan.AttemptsExhausted, 0},
		{"a permanent error is not retried", pure, mulligan.Permanent(errFlaky), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"permanent wins over a hint", pure, mulligan.Permanent(mulligan.After(time.Second, errFlaky)), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"a retry that would start after the total time is not planned", at(2, 9900*ms), errFlaky, mulligan.Spend, mulligan.TimeExhausted, 0},
		{"a retry within the total time is planned", at(2, 9700*ms), errFlaky, mulligan.Retry, "", 200 * ms},
		{"a throttled call without a hint waits a second and its spread", pure, mulligan.After(0, errFlaky), mulligan.Retry, "", 1250 * ms},
		{"a hint is a lower bound", pure, mulligan.After(3*time.Second, errFlaky), mulligan.Retry, "", 3250 * ms},
		{"a hint beyond the total time ends the job at once", pure, mulligan.After(time.Minute, errFlaky), mulligan.Spend, mulligan.TimeExhausted, 0},
		{"unusable output is not produced again", pure, mulligan.Unusable(errFlaky), mulligan.Spend, mulligan.NoChange, 0},
		{"a changed payload is tried", pure, changed("b"), mulligan.Retry, "", 100 * ms},
		{"the published payload is no change", pure, changed("published"), mulligan.Spend, mulligan.NoChange, 0},
		{"a third change is refused", twice, changed("d"), mulligan.Spend, mulligan.AttemptsExhausted, 0},
		{"a payload tried before is no change", twice, changed("b"), mulligan.Spend, mulligan.NoChange, 0},
		{"a change after a possible effect is refused", keyed, changed("b"), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"a change is fine when the effect certainly did not happen", keyed, mulligan.NotStarted(changed("b")), mulligan.Retry, "", 100 * ms},
		{"unusable output with a change is tried with it", pure, mulligan.Unusable(changed("b")), mulligan.Retry, "", 100 * ms},
		{"a change too large to record is refused", pure, mulligan.Changed(make([]byte, mulligan.MaxChanged+1), errFlaky), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"a snooze is deferred without a look at the attempts", at(4, 0), mulligan.Snooze(time.Hour), mulligan.Defer, mulligan.Snoozed, time.Hour},
		{"a refused credential waits without using an attempt", at(4, 0), mulligan.RefusedCredential(errFlaky), mulligan.Defer, mulligan.Credential, 30 * time.Second},
		{"a job's own credential is permanent", pure, mulligan.Permanent(mulligan.RefusedCredential(errFlaky)), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"a once job whose credential was refused certainly had no effect", mulligan.Ended{Number: 1, Effect: mulligan.Once}, mulligan.RefusedCredential(errFlaky), mulligan.Defer, mulligan.Credential, 30 * time.Second},
		{"a panic is like any failure", pure, mulligan.Typed("panic", errFlaky), mulligan.Retry, "", 100 * ms},
		{"an effect not begun is retried", keyed, mulligan.NotStarted(errFlaky), mulligan.Retry, "", 100 * ms},
		{"a failed call ends the job with its reason", pure, called(mulligan.AttemptsExhausted, errFlaky), mulligan.Spend, mulligan.AttemptsExhausted, 0},
		{"a failed call ends the job wherever it is wrapped", pure, fmt.Errorf("ask the model: %w", called(mulligan.TaskBudget, errFlaky)), mulligan.Spend, mulligan.TaskBudget, 0},
		{"a call that was cancelled ends nothing", pure, called(mulligan.Cancelled, errFlaky), mulligan.Retry, "", 100 * ms},
		{"a call's permanent failure is the job's", pure, called(mulligan.PermanentFailure, mulligan.Permanent(errFlaky)), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"a snooze within a call is the job's", pure, called(mulligan.Snoozed, mulligan.Snooze(time.Hour)), mulligan.Defer, mulligan.Snoozed, time.Hour},
		{"a credential refused within a call lets the job wait", pure, called(mulligan.Credential, mulligan.RefusedCredential(errFlaky)), mulligan.Defer, mulligan.Credential, 30 * time.Second},
		{"a change within a call is the job's", pure, called(mulligan.NoChange, changed("b")), mulligan.Retry, "", 100 * ms},
		{"what could not be done in time goes on in the queue", pure, mulligan.Later(called(mulligan.AttemptsExhausted, errFlaky)), mulligan.Retry, "", 100 * ms},
		{"a call that was handed over goes on wherever it is wrapped", pure, fmt.Errorf("%w", mulligan.Later(fmt.Errorf("%w", called(mulligan.TimeExhausted, errFlaky)))), mulligan.Retry, "", 100 * ms},
		{"a call that was handed over within a call that was not ends the job", pure, called(mulligan.AttemptsExhausted, mulligan.Later(called(mulligan.TimeExhausted, errFlaky))), mulligan.Spend, mulligan.AttemptsExhausted, 0},
		{"later has no more attempts than the job", at(4, 0), mulligan.Later(called(mulligan.AttemptsExhausted, errFlaky)), mulligan.Spend, mulligan.AttemptsExhausted, 0},
		{"later has no more time than the job", at(2, 9900*ms), mulligan.Later(called(mulligan.TimeExhausted, errFlaky)), mulligan.Spend, mulligan.TimeExhausted, 0},
		{"later of any failure is a retry", pure, mulligan.Later(errFlaky), mulligan.Retry, "", 100 * ms},
		{"later of nothing is nothing", pure, mulligan.Later(nil), mulligan.Ack, "", 0},
		{"later is not before what is left of the hint", pure, mulligan.Later(hinted(2000*ms, mulligan.After(5*time.Second, errFlaky))), mulligan.Retry, "", 2250 * ms},
		{"a handler's own hint counts too", pure, mulligan.After(3*time.Second, mulligan.Later(hinted(2000*ms, mulligan.After(5*time.Second, errFlaky)))), mulligan.Retry, "", 3250 * ms},
		{"a handler's own hint does not shorten the call's", pure, mulligan.After(0, mulligan.Later(hinted(2000*ms, mulligan.After(5*time.Second, errFlaky)))), mulligan.Retry, "", 2250 * ms},
		{"permanent wins over later", pure, mulligan.Later(mulligan.Permanent(errFlaky)), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"permanent wins over later around it", pure, mulligan.Permanent(mulligan.Later(errFlaky)), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"unusable output wins over later", pure, mulligan.Later(mulligan.Unusable(errFlaky)), mulligan.Spend, mulligan.NoChange, 0},
		{"later of a snooze is a snooze", pure, mulligan.Later(mulligan.Snooze(time.Hour)), mulligan.Defer, mulligan.Snoozed, time.Hour},
		{"later of a change is the change", pure, mulligan.Later(changed("b")), mulligan.Retry, "", 100 * ms},
		{"later of a refused credential waits", pure, mulligan.Later(mulligan.RefusedCredential(errFlaky)), mulligan.Defer, mulligan.Credential, 30 * time.Second},
		{"later is refused after a doubtful failure of a once job", once, mulligan.Later(errFlaky), mulligan.Spend, mulligan.InDoubt, 0},
		{"later is refused after a doubtful call of a once job", once, mulligan.Later(called(mulligan.InDoubt, errFlaky)), mulligan.Spend, mulligan.InDoubt, 0},
		{"later is refused when an earlier attempt left the doubt", once, mulligan.Later(called(mulligan.Cancelled, mulligan.NotStarted(errFlaky))), mulligan.Spend, mulligan.InDoubt, 0},
		{"a once job's call that had no effect goes on", once, mulligan.Later(&mulligan.CallError{Reason: mulligan.AttemptsExhausted, NotStarted: true, Err: mulligan.NotStarted(errFlaky)}), mulligan.Retry, "", 100 * ms},
		{"a once job's call that never began goes on", once, mulligan.Later(&mulligan.CallError{Reason: mulligan.Expired, NotStarted: true, Ended: errFlaky}), mulligan.Retry, "", 100 * ms},
		{"a handler may know that its call had no effect", once, mulligan.Later(mulligan.NotStarted(called(mulligan.InDoubt, errFlaky))), mulligan.Retry, "", 100 * ms},
		{"later of a job without a key is refused", noKey, mulligan.Later(called(mulligan.NoKey, errFlaky)), mulligan.Spend, mulligan.NoKey, 0},
		{"one of two branches does not say that nothing happened", once, fmt.Errorf("primary: %w; fallback: %w", errFlaky, syscall.ECONNREFUSED), mulligan.Spend, mulligan.InDoubt, 0},
		{"nor does a refused credential of one", once, errors.Join(mulligan.RefusedCredential(errFlaky), errFlaky), mulligan.Spend, mulligan.InDoubt, 0},
		{"nor a word of the handler about one", once, errors.Join(errFlaky, mulligan.NotStarted(errFlaky)), mulligan.Spend, mulligan.InDoubt, 0},
		{"a snooze in one branch does not settle the doubt of another", once, errors.Join(mulligan.Snooze(time.Hour), errFlaky), mulligan.Spend, mulligan.InDoubt, 0},
		{"nor does a permanent failure", once, errors.Join(mulligan.Permanent(errFlaky), errFlaky), mulligan.Spend, mulligan.InDoubt, 0},
		{"nor does one of two calls", once, mulligan.Later(errors.Join(&mulligan.CallError{Reason: mulligan.AttemptsExhausted, Attempts: 1, NotStarted: true, Err: errFlaky}, called(mulligan.AttemptsExhausted, errFlaky))), mulligan.Spend, mulligan.InDoubt, 0},
		{"all branches say that nothing happened", once, errors.Join(mulligan.NotStarted(errFlaky), syscall.ECONNREFUSED), mulligan.Retry, "", 100 * ms},
		{"a word about the whole is about all branches", once, mulligan.NotStarted(errors.Join(errFlaky, errFlaky)), mulligan.Retry, "", 100 * ms},
		{"a doubt in any branch is a doubt, whatever the effect", pure, errors.Join(errFlaky, mulligan.ErrInDoubt), mulligan.Spend, mulligan.InDoubt, 0},
		{"permanent in any branch is permanent", pure, errors.Join(errFlaky, mulligan.Permanent(errFlaky)), mulligan.Spend, mulligan.PermanentFailure, 0},
		{"the longest hint of all branches counts", pure, errors.Join(mulligan.After(time.Second, errFlaky), mulligan.After(4*time.Second, errFlaky)), mulligan.Retry, "", 4250 * ms},
		{"the longest hint counts also within another", pure, mulligan.After(time.Second, mulligan.After(4*time.Second, errFlaky)), mulligan.Retry, "", 4250 * ms},
		{"a hint that the error does not say counts, too", hintLeft, errFlaky, mulligan.Retry, "", 3250 * ms},
		{"a refused credential waits for the hint", pure, mulligan.RefusedCredential(mulligan.After(5*time.Minute, errFlaky)), mulligan.Defer, mulligan.Credential, 315 * time.Second},
		{"a snooze waits for the hint", pure, errors.Join(mulligan.Snooze(time.Second), mulligan.After(5*time.Minute, errFlaky)), mulligan.Defer, mulligan.Snoozed, 315 * time.Second},
		{"a refused credential waits longer each time", waited(2), mulligan.RefusedCredential(errFlaky), mulligan.Defer, mulligan.Credential, 2 * time.Minute},
		{"but not for ever", waited(200), mulligan.RefusedCredential(errFlaky), mulligan.Defer, mulligan.Credential, 10 * time.Minute},
		{"a call that was not handed over ends the job, in whatever branch", pure, errors.Join(mulligan.Later(called(mulligan.TimeExhausted, errFlaky)), called(mulligan.TaskBudget, errFlaky)), mulligan.Spend, mulligan.TaskBudget, 0},
		{"and in whatever order", pure, errors.Join(called(mulligan.TaskBudget, errFlaky), mulligan.Later(called(mulligan.TimeExhausted, errFlaky))), mulligan.Spend, mulligan.TaskBudget, 0},
		{"a call that waited in vain goes on in the queue without later", pure, called(mulligan.Held, errFlaky), mulligan.Retry, "", 100 * ms},
		{"within the job's attempts", at(4, 0), called(mulligan.Held, errFlaky), mulligan.Spend, mulligan.AttemptsExhausted, 0},
		{"a handler that called nothing waits at no cost", uncalled, &mulligan.CallError{Reason: mulligan.Held, NotStarted: true}, mulligan.Defer, mulligan.Held, 2 * time.Second},
		{"with later, too", uncalled, mulligan.Later(&mulligan.CallError{Reason: mulligan.Held, NotStarted: true}), mulligan.Defer, mulligan.Held, 2 * time.Second},
		{"what a call did is not undone by what another says", begun, mulligan.Later(&mulligan.CallError{Reason: mulligan.AttemptsExhausted, Attempts: 2, NotStarted: true, Err: syscall.ECONNREFUSED}), mulligan.Spend, mulligan.InDoubt, 0},
		{"nor by what the handler met behind it", begun, fmt.Errorf("mail: %w", syscall.ECONNREFUSED), mulligan.Spend, mulligan.InDoubt, 0},
		{"the handler may know better", begun, mulligan.NotStarted(errFlaky), mulligan.Retry, "", 100 * ms},
		{"steps know what a call did", begunInSteps, errFlaky, mulligan.Retry, "", 100 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := policy().Judge(tt.a, tt.err, mulligan.Chance{U: 0.5, V: 0.5})
			if got.Verb != tt.verb || got.Reason != tt.reason || got.Delay != tt.delay {
				t.Errorf("Judge(%+v, %v) = %s %s %v, want %s %s %v", tt.a, tt.err, got.Verb, got.Reason, got.Delay, tt.verb, tt.reason, tt.delay)
			}
			if got.Verb == mulligan.Spend && got.Changed != nil {
				t.Error("a spent job keeps a changed payload")
			}
		})
	}
}

func TestUnder(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	soon, later := mulligan.Verdict{Verb: mulligan.Retry, Delay: time.Second}, mulligan.Verdict{Verb: mulligan.Retry, Delay: 3 * time.Second}
	snooze := mulligan.Verdict{Verb: mulligan.Defer, Reason: mulligan.Snoozed, Delay: time.Hour}
	in := func(d time.Duration) time.Time { return now.Add(d) }
	for _, tt := range []struct {
		name   string
		v      mulligan.Verdict
		g      mulligan.Grant
		verb   mulligan.Verb
		reason mulligan.Reason
		due    time.Time
	}{
		{"a short retry with room is a nak", soon, mulligan.Grant{Nak: true, Deadline: in(time.Hour)}, mulligan.Nak, "", in(time.Second)},
		{"a short retry without room is parked", soon, mulligan.Grant{Deadline: in(time.Hour)}, mulligan.Park, "", in(time.Second)},
		{"a long retry is parked", later, mulligan.Grant{Nak: true, Deadline: in(time.Hour)}, mulligan.Park, "", in(3 * time.Second)},
		{"a retry at the deadline is not planned", soon, mulligan.Grant{Nak: true, Deadline: in(time.Second)}, mulligan.Spend, mulligan.Expired, in(time.Second)},
		{"a user's later place is kept", soon, mulligan.Grant{Nak: true, Deadline: in(time.Hour), Place: in(time.Minute)}, mulligan.Defer, mulligan.UserBudget, in(time.Minute)},
		{"a user's place before the retry is due changes nothing", soon, mulligan.Grant{Nak: true, Deadline: in(time.Hour), Place: in(time.Second)}, mulligan.Nak, "", in(time.Second)},
		{"a retry whose user is asked later is parked", later, mulligan.Grant{Deadline: in(time.Hour), Unasked: true}, mulligan.Park, "", in(3 * time.Second)},
		{"no place before the deadline ends the job", soon, mulligan.Grant{Nak: true, Deadline: in(time.Hour), Denied: true}, mulligan.Spend, mulligan.UserBudget, in(time.Second)},
		{"no retry left for the task ends the job", soon, mulligan.Grant{Nak: true, Deadline: in(time.Hour), NoTask: true}, mulligan.Spend, mulligan.TaskBudget, in(time.Second)},
		{"a snooze is parked", snooze, mulligan.Grant{Deadline: in(2 * time.Hour)}, mulligan.Defer, mulligan.Snoozed, in(time.Hour)},
		{"a snooze past the deadline ends the job", snooze, mulligan.Grant{Deadline: in(time.Minute)}, mulligan.Spend, mulligan.Expired, in(time.Hour)},
		{"what is spent stays spent", mulligan.Verdict{Verb: mulligan.Spend, Reason: mulligan.NoChange}, mulligan.Grant{}, mulligan.Spend, mulligan.NoChange, time.Time{}},
		{"what is done stays done", mulligan.Verdict{Verb: mulligan.Ack}, mulligan.Grant{Denied: true}, mulligan.Ack, "", time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.g.Now = now
			got := tt.v.Under(tt.g)
			if got.Verb != tt.verb || got.Reason != tt.reason || !got.Due.Equal(tt.due) {
				t.Errorf("%+v under %+v = %s %s %v, want %s %s %v", tt.v, tt.g, got.Verb, got.Reason, got.Due, tt.verb, tt.reason, tt.due)
			}
		})
	}
}

func TestAPolicyJudgesAsWhatItMeans(t *testing.T) {
	zero, normal := mulligan.Policy{}.Judge(mulligan.Ended{Number: 1}, errFlaky, mulligan.Chance{}), policy().Judge(mulligan.Ended{Number: 1}, errFlaky, mulligan.Chance{})
	if zero.Verb != normal.Verb || zero.Delay != normal.Delay {
		t.Errorf("the zero policy says %+v, the default %+v", zero, normal)
	}
}
