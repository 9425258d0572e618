package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// model has the bounds that most tests share.
func model(k kind, change func(*Model)) Model {
	c := Model{Kind: k, Attempts: 2, Starts: 2, Schedulers: 1, Rules: allRules()}
	change(&c)
	return c
}

func (c Model) name() string {
	return fmt.Sprintf("%v, steps %d, crash %d, slow %d, publish %d, replay %d, snooze %d, stale %d", c.Kind, c.Steps, c.Crash, c.Slow, c.Publish, c.Replay, c.Snooze, c.Stale)
}

func TestNoMoveBreaksAPromise(t *testing.T) {
	t.Parallel()
	crashSlow := func(c *Model) { c.Crash, c.Slow, c.Runs = 1, 1, true }
	crashPublish := func(c *Model) { c.Crash, c.Publish = 1, 1 }
	slowPublish := func(c *Model) { c.Slow, c.Publish, c.Attempts = 1, 1, 3 }
	crashReplay := func(c *Model) { c.Crash, c.Replay, c.Runs = 1, 1, true }
	slowReplay := func(c *Model) { c.Slow, c.Replay = 1, 1 }
	publishReplay := func(c *Model) { c.Publish, c.Replay = 1, 1 }
	twoSchedulers := func(c *Model) { c.Crash, c.Slow, c.Schedulers = 1, 1, 2 }
	stepsCrashSlow := func(c *Model) { c.Steps, c.Crash, c.Slow = 2, 1, 1 }
	stepsSlowReplay := func(c *Model) { c.Steps, c.Slow, c.Replay = 2, 1, 1 }
	stepsPublish := func(c *Model) { c.Steps, c.Publish = 2, 1 }
	snoozeCrash := func(c *Model) { c.Snooze, c.Crash, c.Runs = 2, 1, true }
	snoozeSlow := func(c *Model) { c.Snooze, c.Slow = 1, 1 }
	snoozePublish := func(c *Model) { c.Snooze, c.Publish = 1, 1 }
	snoozeReplay := func(c *Model) { c.Snooze, c.Replay = 1, 1 }
	staleCrash := func(c *Model) { c.Stale, c.Crash = 1, 1 }
	staleReplay := func(c *Model) { c.Stale, c.Replay = 1, 1 }
	all := []Model{
		model(keyed, staleCrash), model(keyed, staleReplay), model(once, staleCrash), model(once, staleReplay),
		model(pure, crashSlow), model(pure, crashPublish), model(pure, slowPublish), model(pure, crashReplay), model(pure, slowReplay), model(pure, publishReplay),
		model(keyed, crashSlow), model(keyed, crashPublish), model(keyed, slowPublish), model(keyed, crashReplay), model(keyed, slowReplay), model(keyed, publishReplay),
		model(keyed, twoSchedulers), model(keyed, stepsCrashSlow), model(keyed, stepsPublish),
		model(once, crashSlow), model(once, crashPublish), model(once, slowReplay), model(once, publishReplay),
		model(pure, snoozeCrash), model(pure, snoozePublish), model(keyed, snoozeCrash), model(keyed, snoozeSlow), model(keyed, snoozePublish),
		model(once, snoozeCrash), model(once, snoozeSlow), model(once, snoozePublish), model(once, snoozeReplay),
		model(once, stepsCrashSlow), model(once, stepsSlowReplay), model(once, stepsPublish),
	}
	if raced {
		all = []Model{model(pure, snoozeCrash), model(keyed, snoozeSlow), model(once, stepsPublish)}
	}
	for _, c := range all {
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			x := c.Explore(2_000_000, true, false)
			t.Logf("%d states, %d at rest", x.States, x.AtRest)
			if !x.Full {
				t.Errorf("cut off after %d states", x.States)
			}
			for _, v := range x.Violations() {
				t.Errorf("%s:\n%s", v, strings.Join(x.First[v], "\n"))
			}
		})
	}
}

// Each rule is there for something: without it a promise is broken, within these
// bounds. The violation named is the one found first.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	publish := func(c *Model) { c.Publish = 1 }
	crash := func(c *Model) { c.Crash, c.Runs = 1, true }
	slow := func(c *Model) { c.Slow = 1 }
	replay := func(c *Model) { c.Replay = 1 }
	long := func(c *Model) { c.Attempts, c.Publish = 3, 1 }
	crashReplay := func(c *Model) { c.Crash, c.Replay, c.Runs = 1, 1, true }
	publishReplay := func(c *Model) { c.Publish, c.Replay = 1, 1 }
	steps := func(change func(*Model)) func(*Model) {
		return func(c *Model) { c.Steps = 2; change(c) }
	}
	tests := []struct {
		rule   string
		kind   kind
		bounds func(*Model)
		want   string
	}{
		{"DonePayload", keyed, publish, "I1"},
		{"ConflictStays", keyed, publishReplay, "I1"},
		{"SpentIsEnd", once, crash, "I2"},
		{"OnlyReplay", pure, crash, "I3"},
		{"RecordReason", once, crashReplay, "I2"},
		{"DeadOnlySpent", keyed, crashReplay, "I6"},
		{"CertainEnd", keyed, func(c *Model) { c.Stale = 1 }, "I6"},
		{"LateFollows", keyed, crash, "I3"},
		{"SecondWaits", keyed, long, "I5"},
		{"ExemptByDue", keyed, long, "I5"},
		{"NakAgain", keyed, func(*Model) {}, "I5"},
		{"FirstIsFree", keyed, func(c *Model) { c.Snooze = 1 }, "a first attempt waits"},
		{"RetryNeedsToken", keyed, func(c *Model) { c.Snooze, c.Publish = 1, 1 }, "I4"},
		{"ReopenOnce", keyed, crashReplay, "I3"},
		{"ReopeningInID", keyed, crashReplay, "I6"},
		{"Start", once, crash, "I2"},
		{"StartDoubts", once, crash, "I2"},
		{"StartWaits", once, func(c *Model) { c.Publish, c.Attempts = 1, 3 }, "I2"},
		{"StartIsOwn", once, steps(crashReplay), "I2"},
		{"Settle", once, slow, "I6"},
		{"SettleReopened", keyed, publishReplay, "I6"},
		{"SettleID", once, slow, "I6"},
		{"DoneDeletes", once, slow, "I6"},
		{"TakeBack", once, slow, "I6"},
		{"StepBegins", once, steps(crash), "I2"},
		{"OpenDoubts", once, steps(crash), "I2"},
		{"ResumeNeedsStep", once, crash, "I2"},
		{"StepOwnsStart", once, steps(slow), "I5"},
		{"StepsStay", once, steps(replay), "I2"},
		{"DoneKeepsSteps", keyed, steps(crash), "I2"},
		{"FirstResult", keyed, steps(crash), "I2"},
	}
	var shown []string
	for _, tt := range tests {
		shown = append(shown, tt.rule)
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			c := model(tt.kind, tt.bounds)
			if err := c.switchOff(tt.rule); err != nil {
				t.Fatal(err)
			}
			x := c.Explore(1_000_000, false, true)
			found := x.Violations()
			if !slices.ContainsFunc(found, func(v string) bool { return strings.HasPrefix(v, tt.want) }) {
				t.Errorf("without %s, %s: found %q in %d states, want a violation of %s", tt.rule, c.name(), found, x.States, tt.want)
			}
			for _, v := range found {
				t.Logf("%s, %d states:\n%s", v, x.States, strings.Join(x.First[v], "\n"))
			}
		})
	}
	for _, rule := range ruleNames() {
		if !slices.Contains(shown, rule) {
			t.Errorf("no case shows what rule %s is for", rule)
		}
	}
}
