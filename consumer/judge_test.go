package consumer

import (
	"errors"
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
	pure := attempt{Number: 1, Effect: mulligan.Pure, Tried: []mulligan.Fingerprint{published}}
	keyed := attempt{Number: 1, Effect: mulligan.Keyed, Tried: []mulligan.Fingerprint{published}}
	at := func(n int, spent time.Duration) attempt {
		return attempt{Number: n, Spent: spent, Effect: mulligan.Pure, Tried: []mulligan.Fingerprint{published}}
	}
	twice := pure
	twice.Tried = append(twice.Tried, mulligan.FingerprintOf([]byte("b")), mulligan.FingerprintOf([]byte("c")))
	for _, tt := range []struct {
		name   string
		a      attempt
		err    error
		verb   verb
		reason mulligan.Reason
		delay  time.Duration
	}{
		{"no error is acknowledged", pure, nil, ack, "", 0},
		{"a transient error is retried after the first delay", pure, errFlaky, retry, "", 100 * ms},
		{"each retry doubles the delay", at(3, 0), errFlaky, retry, "", 400 * ms},
		{"the last attempt is spent", at(4, 0), errFlaky, spend, mulligan.AttemptsExhausted, 0},
		{"one beyond the last is spent too", at(5, 0), errFlaky, spend, mulligan.AttemptsExhausted, 0},
		{"a permanent error is not retried", pure, mulligan.Permanent(errFlaky), spend, mulligan.PermanentFailure, 0},
		{"permanent wins over a hint", pure, mulligan.Permanent(mulligan.After(time.Second, errFlaky)), spend, mulligan.PermanentFailure, 0},
		{"a retry that would start after the total time is not planned", at(2, 9900*ms), errFlaky, spend, mulligan.TimeExhausted, 0},
		{"a retry within the total time is planned", at(2, 9700*ms), errFlaky, retry, "", 200 * ms},
		{"a throttled call without a hint waits a second and its spread", pure, mulligan.After(0, errFlaky), retry, "", 1250 * ms},
		{"a hint is a lower bound", pure, mulligan.After(3*time.Second, errFlaky), retry, "", 3250 * ms},
		{"a hint beyond the total time ends the job at once", pure, mulligan.After(time.Minute, errFlaky), spend, mulligan.TimeExhausted, 0},
		{"unusable output is not produced again", pure, mulligan.Unusable(errFlaky), spend, mulligan.NoChange, 0},
		{"a changed payload is tried", pure, changed("b"), retry, "", 100 * ms},
		{"the published payload is no change", pure, changed("published"), spend, mulligan.NoChange, 0},
		{"a third change is refused", twice, changed("d"), spend, mulligan.AttemptsExhausted, 0},
		{"a payload tried before is no change", twice, changed("b"), spend, mulligan.NoChange, 0},
		{"a change after a possible effect is refused", keyed, changed("b"), spend, mulligan.PermanentFailure, 0},
		{"a change is fine when the effect certainly did not happen", keyed, mulligan.NotStarted(changed("b")), retry, "", 100 * ms},
		{"unusable output with a change is tried with it", pure, mulligan.Unusable(changed("b")), retry, "", 100 * ms},
		{"a change too large to record is refused", pure, mulligan.Changed(make([]byte, mulligan.MaxChanged+1), errFlaky), spend, mulligan.PermanentFailure, 0},
		{"a snooze is deferred without a look at the attempts", at(4, 0), mulligan.Snooze(time.Hour), deferred, mulligan.Snoozed, time.Hour},
		{"a panic is like any failure", pure, mulligan.Typed("panic", errFlaky), retry, "", 100 * ms},
		{"an effect not begun is retried", keyed, mulligan.NotStarted(errFlaky), retry, "", 100 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := judge(policy(), tt.a, tt.err, chance{u: 0.5, v: 0.5})
			if got.verb != tt.verb || got.reason != tt.reason || got.delay != tt.delay {
				t.Errorf("judge(%+v, %v) = %s %s %v, want %s %s %v", tt.a, tt.err, got.verb, got.reason, got.delay, tt.verb, tt.reason, tt.delay)
			}
			if got.verb == spend && got.changed != nil {
				t.Error("a spent job keeps a changed payload")
			}
		})
	}
}

func TestUnder(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	soon, later := verdict{verb: retry, delay: time.Second}, verdict{verb: retry, delay: 3 * time.Second}
	snooze := verdict{verb: deferred, reason: mulligan.Snoozed, delay: time.Hour}
	in := func(d time.Duration) time.Time { return now.Add(d) }
	for _, tt := range []struct {
		name   string
		v      verdict
		g      grant
		verb   verb
		reason mulligan.Reason
		due    time.Time
	}{
		{"a short retry with room is a nak", soon, grant{nak: true, deadline: in(time.Hour)}, nak, "", in(time.Second)},
		{"a short retry without room is parked", soon, grant{deadline: in(time.Hour)}, park, "", in(time.Second)},
		{"a long retry is parked", later, grant{nak: true, deadline: in(time.Hour)}, park, "", in(3 * time.Second)},
		{"a retry at the deadline is not planned", soon, grant{nak: true, deadline: in(time.Second)}, spend, mulligan.Expired, in(time.Second)},
		{"a user's later place is kept", soon, grant{nak: true, deadline: in(time.Hour), place: in(time.Minute)}, deferred, mulligan.UserBudget, in(time.Minute)},
		{"a user's place before the retry is due changes nothing", soon, grant{nak: true, deadline: in(time.Hour), place: in(time.Second)}, nak, "", in(time.Second)},
		{"a retry whose user is asked later is parked", later, grant{deadline: in(time.Hour), unasked: true}, park, "", in(3 * time.Second)},
		{"no place before the deadline ends the job", soon, grant{nak: true, deadline: in(time.Hour), denied: true}, spend, mulligan.UserBudget, in(time.Second)},
		{"no retry left for the task ends the job", soon, grant{nak: true, deadline: in(time.Hour), noTask: true}, spend, mulligan.TaskBudget, in(time.Second)},
		{"a snooze is parked", snooze, grant{deadline: in(2 * time.Hour)}, deferred, mulligan.Snoozed, in(time.Hour)},
		{"a snooze past the deadline ends the job", snooze, grant{deadline: in(time.Minute)}, spend, mulligan.Expired, in(time.Hour)},
		{"what is spent stays spent", verdict{verb: spend, reason: mulligan.NoChange}, grant{}, spend, mulligan.NoChange, time.Time{}},
		{"what is done stays done", verdict{verb: ack}, grant{denied: true}, ack, "", time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.g.now = now
			got := tt.v.under(tt.g)
			if got.verb != tt.verb || got.reason != tt.reason || !got.due.Equal(tt.due) {
				t.Errorf("%+v under %+v = %s %s %v, want %s %s %v", tt.v, tt.g, got.verb, got.reason, got.due, tt.verb, tt.reason, tt.due)
			}
		})
	}
}
