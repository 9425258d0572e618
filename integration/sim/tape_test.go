package sim

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A run is one call of a handler, as the handler saw it.
type run struct {
	process *process
	key     string // of the record
	payload string
	attempt int
	begun   time.Time
	ended   time.Time // zero while it goes on, and of one that its process did not outlive
	answer  answer
	err     error
}

func (r *run) over() bool {
	r.process.mu.Lock()
	defer r.process.mu.Unlock()
	return !r.ended.IsZero() || r.process.dead
}

// A tape has what happened outside of the program under test.
type tape struct {
	mu      sync.Mutex
	began   time.Time
	runs    []*run
	effects map[string]int // by the key that the downstream was given
	faults  []happened
	deeds   []deed
	sent    []sent
	told    []told
	lines   []string
}

// happened is a fault that did.
type happened struct {
	fault
	at time.Time
}

// A deed is what a person did with a dead letter.
type deed struct {
	at   time.Time
	over time.Time // zero if its process ended meanwhile
	key  string
	verb string        // replay, done, not done, step done
	span time.Duration // from publishing to the deadline
}

// again reports whether it lets the key run again.
func (d deed) again() bool { return d.verb != "done" }

// sent is a message that may have been stored.
type sent struct {
	message int
	key     string
	job     mulligan.Job
}

// told is what a publisher was told of a message.
type told struct {
	at       time.Time
	message  int
	key      string
	payload  string
	accepted bool
	verified bool // it was not only taken for the duplicate of something
	refused  bool // and no earlier try can have been stored
}

func (t *tape) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sayLocked(format, args...)
}

func (t *tape) sayLocked(format string, args ...any) {
	t.lines = append(t.lines, fmt.Sprintf("%8.3f ", time.Since(t.began).Seconds())+fmt.Sprintf(format, args...))
}

func (t *tape) begin(p *process, j *mulligan.Job, script []answer) *run {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &run{process: p, key: mulligan.RecordKey(j.Kind, mulligan.Token(j.ID)), payload: string(j.Payload), attempt: j.Attempt, begun: time.Now(), answer: answer{What: succeed}}
	if n := len(t.of(r.key)); n < len(script) {
		r.answer = script[n]
	}
	t.runs = append(t.runs, r)
	t.sayLocked("%s begins %s, attempt %d, payload %q: %+v", p.seat.name, r.key, r.attempt, r.payload, r.answer)
	return r
}

func (t *tape) end(r *run, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.ended, r.err = time.Now(), err
	t.sayLocked("%s ends %s, attempt %d: %v", r.process.seat.name, r.key, r.attempt, err)
}

// do is the downstream: it has the effect behind a key, but not again where it
// honours keys.
func (t *tape) do(downKey string, honours bool) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.effects[downKey] == 0 || !honours {
		t.effects[downKey]++
	}
	return "did " + downKey
}

// of returns the runs of a key, in the order in which they began.
func (t *tape) of(key string) (runs []*run) {
	for _, r := range t.runs {
		if r.key == key {
			runs = append(runs, r)
		}
	}
	return runs
}

// idle reports whether no handler runs, of a key or at all.
func (t *tape) idle(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !slices.ContainsFunc(t.runs, func(r *run) bool { return (key == "" || r.key == key) && !r.over() })
}

func (t *tape) did(downKey string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.effects[downKey] > 0
}

func (t *tape) happened(f fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, happened{f, time.Now()})
	t.sayLocked("fault: %+v", f)
}
