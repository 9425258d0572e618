package budget

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/cas"
	"github.com/mulligan-queue/mulligan/internal/clock"
)

// Users holds every user's retry rate and counts, shared by all workers through
// one key per user. It is safe for concurrent use.
type Users struct {
	bucket *cas.Bucket
	rate   Rate
	clock  *clock.Clock

	mu    sync.Mutex
	lines map[string][]*ask // who waits, by user; present while somebody leads
}

// Open looks up the budgets of a topology.
func Open(ctx context.Context, js jetstream.JetStream, t mulligan.Topology, rate Rate) (*Users, error) {
	rate, err := rate.Normal()
	if err != nil {
		return nil, err
	}
	b, err := cas.Open(ctx, js, t.BudgetBucket())
	if err != nil {
		return nil, err
	}
	return &Users{bucket: b, rate: rate, clock: new(clock.Clock), lines: map[string][]*ask{}}, nil
}

// OnAway has fn told, from before the first call on, of each call of
// [Users.Take] that brings no answer and is made again, and with nil of the next
// answer.
func (u *Users) OnAway(fn func(err error)) { u.bucket.Away = fn }

// Follow has the times of places be those of c, from before the first call on:
// workers share them, and each would be by its own machine's clock.
func (u *Users) Follow(c *clock.Clock) { u.clock = c }

// A UserState is what the bucket holds of one user.
type UserState struct {
	// Whole is when the allowance is whole again if nothing more is taken.
	Whole time.Time `json:"whole"`
	// Granted retries ran at once, Reserved ones were given a later place, and
	// Denied ones had no place before their deadline, or, of a call in a handler,
	// before that would have waited too long.
	Granted  int `json:"granted"`
	Reserved int `json:"reserved"`
	Denied   int `json:"denied"`
}

// userBook is what the bucket holds of one user.
type userBook struct {
	UserState
	Asks asks `json:"asks,omitempty"`
}

// A Place is when a retry may run.
type Place struct {
	At     time.Time
	Denied bool // there is none before the deadline; nothing was taken
}

// keepIdle is how long a user who retries no more is remembered.
const keepIdle = time.Hour

type ask struct {
	due, deadline time.Time
	lead          chan struct{}
	answer        chan answered
	gone          bool // it waits no more
}

type answered struct {
	place Place
	err   error
}

// Take takes the user's next place for a retry that is due at a time, or
// reserves a later one, before deadline. Workers that wait for the same user
// share one write. Take blocks while the server is away, until ctx ends; a
// place may then be wasted, but never given twice.
func (u *Users) Take(ctx context.Context, user string, due, deadline time.Time) (Place, error) {
	a := &ask{due: due, deadline: deadline, lead: make(chan struct{}, 1), answer: make(chan answered, 1)}
	u.join(user, a)
	select {
	case <-a.lead:
		u.serve(ctx, user, a)
	case got := <-a.answer:
		return got.place, got.err
	case <-ctx.Done():
		u.leave(user, a)
		return Place{}, fmt.Errorf("take a place for a user: %w", ctx.Err())
	}
	got := <-a.answer
	return got.place, got.err
}

// join puts a in the user's line; the first in an empty line leads.
func (u *Users) join(user string, a *ask) {
	u.mu.Lock()
	defer u.mu.Unlock()
	line, led := u.lines[user]
	u.lines[user] = append(line, a)
	if !led {
		a.lead <- struct{}{}
	}
}

// leave takes a out of the user's line. Should it have come to lead just now,
// another does.
func (u *Users) leave(user string, a *ask) {
	u.mu.Lock()
	defer u.mu.Unlock()
	a.gone = true
	if line, led := u.lines[user]; led {
		u.lines[user] = waiting(line)
	}
	select {
	case <-a.lead:
		u.handOn(user)
	default:
	}
}

// serve answers all who wait for the user with one write, then lets the next
// in line lead. When the time of the one who leads is up, the others still wait.
func (u *Users) serve(ctx context.Context, user string, leader *ask) {
	u.mu.Lock()
	line := u.lines[user]
	u.lines[user] = nil
	u.mu.Unlock()

	places, err := u.take(ctx, user, line)

	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		leader.gone = true
		leader.answer <- answered{err: err}
		u.lines[user] = waiting(append(line, u.lines[user]...))
		line = nil
	}
	for i, a := range line {
		if err != nil {
			a.answer <- answered{err: err}
			continue
		}
		a.answer <- answered{place: places[i]}
	}
	u.handOn(user)
}

// handOn lets the first in the user's line lead. The line is gone with its last.
func (u *Users) handOn(user string) {
	if line := u.lines[user]; len(line) > 0 {
		line[0].lead <- struct{}{}
		return
	}
	delete(u.lines, user)
}

func waiting(line []*ask) []*ask {
	return slices.DeleteFunc(line, func(a *ask) bool { return a.gone })
}

func (u *Users) take(ctx context.Context, user string, line []*ask) ([]Place, error) {
	var places []Place
	var tries [][]Place // what each try to store gives if it succeeds
	id := nuid.Next() + "."
	err := u.bucket.Update(ctx, "budget", userKey(user), func(value []byte) (cas.Change, error) {
		now := u.clock.Now()
		s := readUser(value, now)
		for n := range tries {
			if s.Asks.have(id + strconv.Itoa(n)) {
				places = tries[n]
				return cas.Change{}, nil
			}
		}
		places = make([]Place, len(line))
		for i, a := range line {
			places[i] = s.Take(u.rate, Want{Now: now, Due: a.due, Deadline: a.deadline})
		}
		s.Asks.add(id + strconv.Itoa(len(tries)))
		tries = append(tries, places)
		b, err := json.Marshal(s)
		return cas.Change{Value: b, TTL: s.keep(now)}, err
	})
	if err != nil {
		return nil, fmt.Errorf("take a place for a user: %w", err)
	}
	return places, nil
}

// readUser reads what the bucket holds of a user. No value, or one that is not
// ours, is a fresh allowance, which is still bounded. So is one that is whole
// later than any places could make it, as of a worker whose clock was wrong: it
// would refuse the user everything for ever.
func readUser(value []byte, now time.Time) (s userBook) {
	if json.Unmarshal(value, &s) != nil || s.Whole.After(now.Add(maxWhole)) || !counts(s.Granted, s.Reserved, s.Denied) {
		return userBook{}
	}
	return s
}

// maxWhole is how long an allowance may need to be whole again: the last place
// is before a deadline, and a burst takes no longer than that; see
// [Rate.Normal].
const maxWhole = 2*mulligan.MaxDeadline + time.Hour

// keep is how long the bucket is to remember s.
func (s *UserState) keep(now time.Time) time.Duration { return max(s.Whole.Sub(now), 0) + keepIdle }

// A Want is what a retry asks of its user's budget.
type Want struct {
	Now      time.Time
	Due      time.Time // when it would run if there were no budget
	Deadline time.Time // of its job
}

// Take takes the next place for a retry, or reserves a later one before its
// deadline; a denial takes nothing. r must be normal, see [Rate.Normal]. It is
// the rule of [Users.Take] without the bucket.
//
// The place is one by the clock of the planning, so that a retry which waits for
// its own delay does not push back those that are due before it. Ask shortly
// before a retry is due: several that were given places for one distant time
// would come back together.
func (s *UserState) Take(r Rate, w Want) Place {
	at, next := r.place(s.Whole, w.Now)
	if at.Before(w.Due) || !at.After(w.Now) {
		at = w.Due // also when it has passed: nothing pushes it back but a slow answer
	}
	if !at.Before(w.Deadline) {
		s.Denied++
		return Place{Denied: true}
	}
	s.Whole = next
	if at.After(w.Due) {
		s.Reserved++
	} else {
		s.Granted++
	}
	return Place{At: at}
}
