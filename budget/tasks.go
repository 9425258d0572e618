package budget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/cas"
)

// Tasks counts the retries of each task over all its jobs, shared by all workers
// through one key per task. It is safe for concurrent use.
type Tasks struct{ bucket *cas.Bucket }

// OpenTasks looks up the budgets of a topology.
func OpenTasks(ctx context.Context, js jetstream.JetStream, t mulligan.Topology) (*Tasks, error) {
	b, err := cas.Open(ctx, js, t.BudgetBucket())
	if err != nil {
		return nil, err
	}
	return &Tasks{bucket: b}, nil
}

// ErrUnreadable is returned for the budget of a task that is not one of ours.
// Nothing is granted then; see [Books.ResetTask].
var ErrUnreadable = errors.New("budget: unreadable")

// OnAway has fn told, from before the first call on, of each call that brings no
// answer and is made again, and with nil of the next answer.
func (t *Tasks) OnAway(fn func(err error)) { t.bucket.Away = fn }

// A TaskState is the budget of one task.
type TaskState struct {
	// Used is how many retries its jobs have had, a retry with a changed payload
	// counted twice. Denied is how many they were refused.
	Used   int `json:"used"`
	Denied int `json:"denied"`
}

// taskBook is what the bucket holds of one task.
type taskBook struct {
	TaskState
	Asks asks `json:"asks,omitempty"`
}

// keepTask is how long a task is remembered after its last retry: longer than
// any job of it may live.
const keepTask = mulligan.MaxDeadline + 24*time.Hour

// A TaskAsk is a wish for retries of a task.
type TaskAsk struct {
	Task string
	// Retries is how many are asked for at once, all or none, and Limit how many
	// the task may have in all.
	Retries, Limit int
}

// Take takes retries of a task, and reports false if that would be more than the
// task may have; then it takes none. Take blocks while the server is away, until
// ctx ends; retries may then be wasted, but never given beyond the limit.
func (t *Tasks) Take(ctx context.Context, a TaskAsk) (granted bool, err error) {
	err = t.update(ctx, a.Task, func(s *TaskState) (done bool) {
		granted = s.take(a)
		return granted
	}, func() { granted = true })
	return granted && err == nil, err
}

// Back gives retries back that were taken and not made use of.
func (t *Tasks) Back(ctx context.Context, a TaskAsk) error {
	return t.update(ctx, a.Task, func(s *TaskState) (done bool) {
		s.Used = max(s.Used-a.Retries, 0)
		return true
	}, func() {})
}

// update makes a change once, or has found that it is made, though the answer to that
// was lost. What is not done may be tried again.
func (t *Tasks) update(ctx context.Context, task string, change func(s *TaskState) (done bool), found func()) error {
	id := nuid.Next()
	err := t.bucket.Update(ctx, "task", taskKey(task), func(value []byte) (cas.Change, error) {
		s, ok := readTask(value)
		if !ok {
			return cas.Change{}, fmt.Errorf("%w: task %.80q has %.80q; reset it with `mulligan budget task`", ErrUnreadable, task, value)
		}
		if s.Asks.have(id) {
			found()
			return cas.Change{}, nil
		}
		if change(&s.TaskState) {
			s.Asks.add(id)
		}
		b, err := json.Marshal(s)
		return cas.Change{Value: b, TTL: keepTask}, err
	})
	if err != nil {
		return fmt.Errorf("budget of a task: %w", err)
	}
	return nil
}

// readTask reads what the bucket holds of a task, and reports false for what is
// not ours: that must not grant anything.
func readTask(value []byte) (s taskBook, ok bool) {
	if value == nil {
		return s, true
	}
	ok = json.Unmarshal(value, &s) == nil && counts(s.Used, s.Denied)
	return s, ok
}

// counts reports whether all are numbers that counting can have come to: the
// next ones are, too.
func counts(all ...int) bool {
	return slices.Min(all) >= 0 && slices.Max(all) <= math.MaxInt/2
}

func (s *TaskState) take(a TaskAsk) (granted bool) {
	if granted = s.Used+a.Retries <= a.Limit; granted {
		s.Used += a.Retries
	} else {
		s.Denied++
	}
	return granted
}

func taskKey(task string) string { return "task." + mulligan.Token(task) }
func userKey(user string) string { return "user." + mulligan.Token(user) }
