package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/mulligan-queue/mulligan"
)

// A scenario is all that is drawn. Chance beyond it is in the program's own
// jitter and in which goroutine goes first: the same scenario may end otherwise.
type scenario struct {
	Attempts int           // of every kind's policy
	Total    time.Duration // of every kind's policy
	Slots    int           // of a downstream in a worker
	Floor    float64       // of a downstream's retries per second
	Keys     []key
	Messages []message
	Faults   []fault
	Visits   []time.Duration // of a person who sees to the dead letters
}

// A key is one job, published once or more often.
type key struct {
	Effect     mulligan.Effect
	Downstream string
	Steps      bool // done in two steps
	User, Task string
	Script     []answer // of its calls, one after the other; afterwards they succeed
}

// A message is what a publisher publishes.
type message struct {
	At        time.Duration
	Key       int
	Other     bool          // with another payload than the key's
	NotBefore time.Duration // after At; zero for at once
	Deadline  time.Duration // after At
	// Clock is how far the clock of its publisher is ahead. Such a publisher is no
	// Go program: it writes to the stream by itself.
	Clock time.Duration
}

const longest = 8 * time.Second

// An answer is what a call of the handler does.
type answer struct {
	What act
	For  time.Duration // that it is about, up to longest
	Late bool          // in the second step
}

type act string

const (
	succeed   act = "succeed"
	transient act = "transient" // before the effect, though nobody knows
	tooLate   act = "too late"  // after the effect
	permanent act = "permanent"
	after     act = "after"
	snooze    act = "snooze"
	change    act = "change"
	changeTo  act = "change to the same"
	unusable  act = "unusable"
	unstarted act = "not started"
	refused   act = "refused credential"
	doubtful  act = "doubtful"
	panics    act = "panic"
	hang      act = "hang"   // until its time is up
	deaf      act = "deaf"   // to that its time is up, then with the effect
	slow      act = "slow"   // with the effect in the end
	poison    act = "poison" // ends its process
)

// A fault happens to one of the processes, at a point that it passes, or to all,
// at a time.
type fault struct {
	What  mishap
	Seat  int    // of seats
	Step  string // the points that count end with it
	Point int    // of the seat, counted over its processes; zero: at At
	At    time.Duration
	For   time.Duration
}

type mishap string

const (
	crash   mishap = "crash"
	freeze  mishap = "freeze" // the process and its connection
	stall   mishap = "stall"  // the connection only
	leave   mishap = "leave"  // in good order, and another comes
	down    mishap = "down"   // the server
	records mishap = "records refuse"
	budgets mishap = "budgets away"
	forget  mishap = "forget"      // a consumer is deleted
	passed  mishap = "passed over" // is what a consumer should deliver
	ahead   mishap = "ahead"       // a user's budget was written by a clock that was ahead
	behind  mishap = "behind"      // or behind
	skew    mishap = "skew"        // so was every record's next move
)

func seats() []string { return []string{"worker 1", "worker 2", "scheduler", "publisher", "person"} }

func users() []string { return []string{"ada", "bob"} }

func downstreams() []string { return []string{"here", "there"} }

const (
	scheduling = 2
	publishing = 3
	attending  = 4
)

func seconds(from, to int) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.IntRange(from*10, to*10), func(n int) time.Duration { return time.Duration(n) * 100 * time.Millisecond })
}

func scenarios() *rapid.Generator[scenario] {
	return rapid.Custom(func(t *rapid.T) scenario {
		s := scenario{
			Attempts: rapid.IntRange(2, 4).Draw(t, "attempts"),
			Total:    rapid.SampledFrom([]time.Duration{20 * time.Second, 5 * time.Second}).Draw(t, "total"),
			Slots:    rapid.IntRange(1, 3).Draw(t, "slots"),
			Floor:    rapid.SampledFrom([]float64{1, 1, 0.2}).Draw(t, "floor"),
			Keys:     rapid.SliceOfN(keys(), 1, 8).Draw(t, "keys"),
		}
		more := 6
		if b := rapid.SampledFrom([]string{"", "", "", "user", "task", "downstream"}).Draw(t, "budget that binds"); b != "" {
			s.Keys, more = s.binding(b).Draw(t, "likes"), 1
		}
		s.Messages = rapid.SliceOfN(messages(len(s.Keys)), 0, more).Draw(t, "messages")
		for i := range s.Keys { // each at least once
			m := messages(1).Draw(t, "message")
			m.Key, m.Other = i, false
			s.Messages = append(s.Messages, m)
		}
		s.Faults = rapid.SliceOfN(faults(), 0, 5).Draw(t, "faults")
		s.Visits = rapid.SliceOfN(seconds(5, 60), 0, 3).Draw(t, "visits")
		return s
	})
}

func keys() *rapid.Generator[key] {
	return rapid.Custom(func(t *rapid.T) key {
		k := key{
			Effect:     rapid.SampledFrom([]mulligan.Effect{mulligan.Pure, mulligan.Keyed, mulligan.Once}).Draw(t, "effect"),
			Downstream: rapid.SampledFrom(downstreams()).Draw(t, "downstream"),
			User:       rapid.SampledFrom(append(users(), "")).Draw(t, "user"),
			Task:       rapid.SampledFrom([]string{"", "", "errand"}).Draw(t, "task"),
		}
		k.Steps = k.Effect != mulligan.Pure && rapid.Bool().Draw(t, "steps")
		k.Script = rapid.SliceOfN(answers(), 0, 6).Draw(t, "script")
		if rapid.IntRange(0, 4).Draw(t, "one answer") == 4 {
			k.Script = slices.Repeat([]answer{answers().Draw(t, "answer")}, 6)
		}
		return k
	})
}

// binding are keys that draw on the same budget, and fail.
func (s *scenario) binding(b string) *rapid.Generator[[]key] {
	down, user, task := s.Keys[0].Downstream, "", ""
	switch b {
	case "user":
		user = "ada"
	case "task":
		task = "errand"
	case "downstream":
		s.Floor = 0.02
	}
	fails := rapid.Custom(func(t *rapid.T) answer {
		return answer{What: rapid.SampledFrom([]act{unstarted, unstarted, unstarted, unstarted, transient, after, change}).Draw(t, "what"), For: seconds(1, 3).Draw(t, "for")}
	})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) key {
		k := keys().Draw(t, "key")
		k.Downstream, k.User, k.Task = down, user, task
		k.Script = rapid.SliceOfN(fails, 2, 4).Draw(t, "script")
		return k
	}), 5, 10)
}

func answers() *rapid.Generator[answer] {
	return rapid.Custom(func(t *rapid.T) answer {
		return answer{
			What: rapid.SampledFrom([]act{succeed, transient, transient, unstarted, unstarted, tooLate, after, after, snooze, slow, hang, deaf,
				panics, change, changeTo, unusable, permanent, refused, doubtful, poison}).Draw(t, "what"),
			For:  seconds(1, int(longest.Seconds())).Draw(t, "for"),
			Late: rapid.Bool().Draw(t, "late"),
		}
	})
}

func messages(keys int) *rapid.Generator[message] {
	return rapid.Custom(func(t *rapid.T) message {
		often := func(often, rarely time.Duration) *rapid.Generator[time.Duration] {
			return rapid.SampledFrom([]time.Duration{often, often, often, often, rarely})
		}
		return message{
			At:        seconds(0, 20).Draw(t, "at"),
			Key:       rapid.IntRange(0, keys-1).Draw(t, "key"),
			Other:     rapid.IntRange(0, 7).Draw(t, "other") == 7,
			NotBefore: often(0, 7*time.Second).Draw(t, "not before"),
			Deadline:  rapid.SampledFrom([]time.Duration{10 * time.Minute, 10 * time.Minute, 10 * time.Minute, 30 * time.Second, 9 * time.Second}).Draw(t, "deadline"),
			Clock:     rapid.SampledFrom([]time.Duration{0, 0, 0, 0, 0, 0, 20 * time.Second, -20 * time.Second}).Draw(t, "clock"),
		}
	})
}

func faults() *rapid.Generator[fault] {
	return rapid.Custom(func(t *rapid.T) fault {
		f := fault{What: rapid.SampledFrom([]mishap{crash, crash, crash, freeze, freeze, stall, leave, down, records, budgets, forget, passed, ahead, behind, skew}).Draw(t, "what"),
			Seat: rapid.IntRange(0, 4).Draw(t, "seat"), For: seconds(0, 45).Draw(t, "for")}
		switch f.What {
		case crash, freeze, stall, leave:
			if f.Seat != publishing { // which passes none
				if f.Step = steps().Draw(t, "step"); f.Step == "" {
					f.Point = rapid.IntRange(1, 60).Draw(t, "point")
					return f
				}
				f.Point = rapid.IntRange(1, 6).Draw(t, "point")
				return f
			}
		}
		f.At = seconds(0, 40).Draw(t, "at")
		return f
	})
}

// steps are those behind which a move is half done; some faults happen anywhere.
func steps() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"", "", "", "handler after", ".publish after", ".ack after", ".store after", ".letter after"})
}

// GoString is the scenario as rapid shows it.
func (s scenario) GoString() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d attempts within %v, %d slots, floor %v", s.Attempts, s.Total, s.Slots, s.Floor)
	for i, k := range s.Keys {
		fmt.Fprintf(&b, "\n  key %d: %s at %s, steps %v, user %q, task %q: %v", i, k.Effect, k.Downstream, k.Steps, k.User, k.Task, k.Script)
	}
	for _, m := range s.Messages {
		fmt.Fprintf(&b, "\n  message: %+v", m)
	}
	for _, f := range s.Faults {
		fmt.Fprintf(&b, "\n  fault: %+v", f)
	}
	if len(s.Visits) > 0 {
		fmt.Fprintf(&b, "\n  visits: %v", s.Visits)
	}
	return b.String()
}
