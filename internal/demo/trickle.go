package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// The kinds that Trickle publishes: complete is pure, send is keyed.
const (
	Complete = "llm.complete"
	Send     = "email.send"
)

const (
	nowhere      = "example.invalid" // no mail arrives there
	defaultEvery = 200 * time.Millisecond
)

// Trickle publishes a job every so often, completions and mails in turn, until
// ctx ends; zero means five a second. Its IDs differ from those of any earlier
// run. While the server is away, the same job is tried again. It fails if pub
// may not publish the kinds.
func Trickle(ctx context.Context, pub *mulligan.Publisher, every time.Duration) error {
	if every <= 0 {
		every = defaultEvery
	}
	run := strings.ToLower(rand.Text()[:6])
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; {
		_, err := pub.Publish(ctx, job(run, n))
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			n++
		case !again(err):
			return fmt.Errorf("trickle: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// again reports whether the same job may be published a little later.
func again(err error) bool {
	return errors.Is(err, mulligan.ErrUnavailable) || errors.Is(err, mulligan.ErrUnconfirmed) || errors.Is(err, mulligan.ErrStreamFull)
}

// job is the n-th job of a run; 1 is the first. Now and then a mail goes to an
// address that no provider accepts, so that every run has a dead letter soon.
func job(run string, n int) mulligan.Job {
	users := []string{"ada", "grace", "ada", "linus", "barbara"}
	j := mulligan.Job{User: users[n%len(users)], Task: fmt.Sprintf("trip-%s-%d", run, n/10)}
	if n%2 == 1 {
		j.Kind, j.ID = Complete, fmt.Sprintf("prompt-%s-%d", run, n)
		j.Payload = encode(prompt{Prompt: fmt.Sprintf("Once upon a time there were %d mulligans", n)})
		return j
	}
	j.Kind, j.ID = Send, fmt.Sprintf("order-%s-%d", run, n)
	host := "example.org"
	if n%40 == 6 {
		host = nowhere
	}
	j.Payload = encode(mail{To: j.User + "@" + host, Text: fmt.Sprintf("Order %d is on its way.", n)})
	return j
}
