package crash

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func hooked(ctx context.Context, hook call.Hook) context.Context { return call.With(ctx, hook) }

// A tale is one life, told with a server of its own: twice without a crash, which
// lists the places that are always passed, then once for each moment with a crash
// exactly then.
type tale struct {
	name string
	// tell prepares the stage, and calls lives.
	tell func(t *testing.T, e *natstest.Env, b *book)
}

// A life lives once, under an ID of its own, and says how often its handler ran
// and whether a person was needed.
type life func(id string) (runs int, doubt bool)

// lives lives a life twice without a crash, then with one at each moment, then with
// two.
func (f *fate) lives(t *testing.T, pairs int, live life) {
	t.Helper()
	f.begin()
	base, doubt := live("whole")
	moments := f.moments()
	f.begin()
	live("again")
	moments = common(moments, f.moments())
	if len(moments) == 0 {
		t.Fatal("no point is passed")
	}
	for i, moment := range moments {
		for _, at := range f.book.choose(moment) {
			f.begin(at)
			runs, doubtful := live(fmt.Sprintf("crash-%d-%s", i, strings.ReplaceAll(strings.ReplaceAll(at.point, " ", "-"), ".", "-")))
			if len(f.ends()) == 0 {
				t.Errorf("it never came to %v", at)
			}
			if runs > base+1 {
				t.Errorf("a crash at %v cost %d runs, %d without it", at, runs, base)
			}
			f.book.pay(moment, cost{runs > base, doubtful && !doubt})
		}
	}
	// Where two crashes meet is drawn, always the same.
	draw := rand.New(rand.NewPCG(1, uint64(len(moments))))
	for n := range pairs {
		first, second := draw.IntN(len(moments)), draw.IntN(len(moments))
		f.begin(moments[min(first, second)][0], moments[max(first, second)][0])
		runs, _ := live(fmt.Sprintf("crashes-%d", n))
		if ends := f.ends(); runs > base+len(ends) {
			t.Errorf("crashes at %v cost %d runs, %d without them", ends, runs, base)
		}
	}
	t.Logf("%d moments, %d runs without a crash", len(moments), base)
}

// common are the places that both lives pass: some are passed only if one process
// happens to be faster than another, such as a worker than the person who replays.
func common(one, other [][]place) (both [][]place) {
	all := slices.Concat(other...)
	for _, moment := range one {
		moment = slices.DeleteFunc(moment, func(p place) bool { return !slices.Contains(all, p) })
		if len(moment) > 0 {
			both = append(both, moment)
		}
	}
	return both
}

// A book has the points at which processes crashed in all tales, and the most that
// it has cost.
type book struct {
	mu      sync.Mutex
	crashes map[string]int
	costs   map[string]cost
}

// cost is what a crash has cost.
type cost struct{ run, doubt bool }

func (c cost) String() string {
	switch c {
	case cost{}:
		return "nothing"
	case cost{run: true}:
		return "one more run"
	case cost{doubt: true}:
		return "once: in doubt"
	}
	return "one more run; once: in doubt"
}

// choose says at which of the places of a moment to crash: at one, and at each
// at which nothing has crashed before.
func (b *book) choose(moment []place) (at []place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range moment {
		if b.crashes[p.point] == 0 {
			at = append(at, p)
		}
	}
	if len(at) == 0 {
		at = []place{slices.MinFunc(moment, func(x, y place) int { return b.crashes[x.point] - b.crashes[y.point] })}
	}
	for _, p := range at {
		b.crashes[p.point]++
	}
	return at
}

func (b *book) pay(moment []place, c cost) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range moment {
		had := b.costs[at.point]
		b.costs[at.point] = cost{had.run || c.run, had.doubt || c.doubt}
	}
}

func tales() []tale {
	return slices.Concat(jobTales(), deedTales(), personTales(), publisherTales(), burialTales(), deployTales(), startTales())
}

func TestACrashAtEveryPoint(t *testing.T) {
	b := &book{crashes: map[string]int{}, costs: map[string]cost{}}
	all, told := tales(), 0
	for _, one := range all {
		t.Run(one.name, func(t *testing.T) {
			told++
			synctest.Test(t, func(t *testing.T) { one.tell(t, natstest.InBubble(t), b) })
		})
	}
	if told == len(all) { // else some were left out by the command line
		b.check(t)
	}
}

// check compares the points of the source, those passed, and the README's list.
func (b *book) check(t *testing.T) {
	t.Helper()
	rows := b.rows(t)
	for _, step := range slices.Sorted(maps.Keys(readSource(t).steps)) {
		for _, side := range []string{"before", "after"} {
			if b.crashes[step+" "+side] == 0 {
				t.Errorf("no tale has a crash at %q: tell one", step+" "+side)
			}
		}
		row, listed := rows[step]
		if !listed {
			t.Errorf("README.md does not list %q: add | `%s` | … | %v | %v |", step, step, b.costs[step+" before"], b.costs[step+" after"])
			continue
		}
		for i, side := range []string{"before", "after"} {
			if seen := b.costs[step+" "+side]; row[i] != seen.String() {
				t.Errorf("README.md says that a crash at %q costs %s; it cost %v", step+" "+side, row[i], seen)
			}
		}
		delete(rows, step)
	}
	for step := range rows {
		t.Errorf("README.md lists %q, and the source has no such step", step)
	}
	steps := readSource(t).steps
	for point := range b.crashes {
		if step, _, _ := strings.Cut(point, " "); !steps[step] {
			t.Errorf("a tale has a crash at %q, and the source names no such step", point)
		}
	}
}

// rows are what README.md says that a crash costs, before and after each step.
func (b *book) rows(t *testing.T) map[string][2]string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][2]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || !strings.HasPrefix(strings.TrimSpace(cells[0]), "`") {
			continue
		}
		rows[strings.Trim(cells[0], " `")] = [2]string{strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])}
	}
	return rows
}
