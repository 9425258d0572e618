package budget

import (
	"hash/fnv"
	"slices"
	"time"
)

// When the breaker trips.
const (
	windowBuckets = 10
	bucketSpan    = time.Second
	windowSpan    = windowBuckets * bucketSpan
	tripCalls     = 20 // and half of them failing
	tripRow       = 20 // without a success between them
)

// userPlaces is among how many places the users of a window are told apart.
const userPlaces = 64

// window counts calls and how many of them failed over the last seconds.
type window struct {
	buckets [windowBuckets]bucket
	sum     bucket
	newest  int64 // which bucket since the beginning
	row     row
}

// row are the failures since the last success, the first of them at a time.
type row struct {
	bucket
	began time.Duration
}

// bucket counts the calls of all, and apart those that are a user's. Users share
// a place where their hashes say so.
type bucket struct {
	all   tally
	users [userPlaces]tally
}

type tally struct{ calls, failing uint32 }

func (t *tally) add(u tally) { t.calls, t.failing = t.calls+u.calls, t.failing+u.failing }
func (t *tally) sub(u tally) { t.calls, t.failing = t.calls-u.calls, t.failing-u.failing }

// fails reports whether half of the calls fail, of so many at least.
func (t tally) fails(calls uint32) bool { return t.calls >= calls && 2*t.failing >= t.calls }

// count adds a call that ended, and reports whether there are too many failures
// now. What is the caller's fault tells nothing about the downstream.
func (w *window) count(at time.Duration, o Outcome) bool {
	if o.Result != Succeeded && !o.Result.failing() {
		return false
	}
	w.roll(int64(at / bucketSpan))
	one := tally{calls: 1}
	if o.Result.failing() {
		one.failing = 1
	}
	for _, b := range []*bucket{&w.sum, &w.buckets[w.newest%windowBuckets]} {
		b.add(o.User, one)
	}
	return w.inRow(at, o) || one.failing > 0 && w.sum.fails()
}

// inRow adds a call that ended, and reports whether too many have failed without
// a success: of what worked well until a moment ago the window holds so many
// successes that half of its calls are failing only after seconds. A row that is
// mostly one user's is for the window to judge; so there are two users in one that
// trips, or calls of nobody.
func (w *window) inRow(at time.Duration, o Outcome) bool {
	if !o.Result.failing() {
		w.row = row{}
		return false
	}
	if w.row.all.calls == 0 || at-w.row.began >= windowSpan {
		w.row = row{began: at}
	}
	w.row.add(o.User, tally{1, 1})
	return w.row.all.calls >= tripRow && !w.row.oneUsers()
}

// oneUsers reports whether over half of the calls are of one user.
func (b *bucket) oneUsers() bool {
	return slices.ContainsFunc(b.users[:], func(u tally) bool { return 2*u.calls > b.all.calls })
}

func (b *bucket) add(user string, t tally) {
	b.all.add(t)
	if user != "" {
		b.users[userPlace(user)].add(t)
	}
}

func userPlace(user string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(user)) // never fails
	return h.Sum32() % userPlaces
}

// fails reports whether the downstream fails: half of its calls do, and it is not
// one user's doing. For that either nobody's calls alone must tell, or two voices,
// and most of all: each user has one, however many his calls, and so have those of
// nobody together. What one user's
// jobs come to is no reason to hold another's, nor is there need to: his first
// attempts come as they arrive, and his retries at his own rate and for tokens.
func (b *bucket) fails() bool {
	if !b.all.fails(tripCalls) {
		return false
	}
	var named tally
	voices, failing := 0, 0
	for _, u := range b.users {
		named.add(u)
		if u.calls > 0 {
			voices++
		}
		if u.fails(1) {
			failing++
		}
	}
	nobodys := b.all
	nobodys.sub(named)
	if nobodys.calls > 0 { // a voice, too
		voices++
	}
	if nobodys.fails(1) {
		failing++
	}
	return nobodys.fails(tripCalls) || failing >= 2 && 2*failing > voices
}

// roll forgets what is older than the window once bucket i is the newest.
func (w *window) roll(i int64) {
	if i-w.newest >= windowBuckets {
		*w = window{newest: i}
	}
	for w.newest < i {
		w.newest++
		old := &w.buckets[w.newest%windowBuckets]
		w.sum.all.sub(old.all)
		for p, u := range old.users {
			w.sum.users[p].sub(u)
		}
		*old = bucket{}
	}
}
