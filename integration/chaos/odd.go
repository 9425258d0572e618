//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

const oddEvery = 2 * time.Second

// publishOdd publishes what is no job, until ctx ends, and returns the subjects
// of what was accepted, without their prefix.
func (r *rig) publishOdd(ctx context.Context) (accepted []string) {
	garbage := []nats.Header{{"Mulligan-Deadline": {"soon"}}, {"mulligan-not-before": {"\x01"}}, {"Mulligan-Deadline": {"9999999h"}}}
	for n := 0; ctx.Err() == nil; n++ {
		subject := fmt.Sprintf("%s.odd-%d", witness.Odd, n)
		m := &nats.Msg{Subject: "mulligan.jobs." + subject, Data: oddPayload(subject), Header: garbage[n%len(garbage)]}
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		if _, err := r.js.PublishMsg(asking, m); err == nil {
			accepted = append(accepted, subject)
		}
		cancel()
		wait(ctx, oddEvery)
	}
	return accepted
}

func oddPayload(subject string) []byte { return bytes.Repeat([]byte(subject), 3) }

// oddEnd takes the letters of what is no job out of the evidence, and checks that
// what was accepted has one, as it was published. The checker finds any call of it.
func (r *rig) oddEnd(ev *witness.Evidence) {
	letters := map[string]witness.Letter{}
	ev.Letters = slices.DeleteFunc(ev.Letters, func(l witness.Letter) bool {
		if l.Kind == witness.Odd {
			subject, _, _ := strings.Cut(l.Subject, ".~") // what follows tells payloads apart
			letters[subject] = l
		}
		return l.Kind == witness.Odd
	})
	for _, subject := range r.odd {
		l, ok := letters["mulligan.dead."+subject]
		if !ok || l.Reason != mulligan.Malformed || l.Payload != witness.Fingerprint(oddPayload(subject)) {
			r.broke(fmt.Errorf("I1 %s: accepted though it is no job, and expected as a malformed letter; saw %v, %q", subject, ok, l.Reason))
		}
	}
	r.say("%d messages that are no jobs are letters", len(letters))
}
