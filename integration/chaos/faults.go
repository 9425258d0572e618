//go:build linux

package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A fault is one thing that goes wrong, from At after the beginning, and for
// how long. What does not last has a For of zero.
type fault struct {
	At     time.Duration `json:"at"`
	For    time.Duration `json:"for"`
	What   string        `json:"what"`
	Target string        `json:"target"`
	With   string        `json:"with,omitempty"` // the other side, or what exactly
	// What came of it.
	Applied  bool          `json:"applied"`
	Lasted   time.Duration `json:"lasted,omitempty"`    // until it was over for all
	InFlight int           `json:"in_flight,omitempty"` // calls that it met, of a worker or of the downstream
	began    time.Time
}

func (f fault) String() string {
	return fmt.Sprintf("%-16s %s %s", f.What, f.Target, f.With)
}

// target names who was hit, for who judges. A link to a server is its client's
// affair alone; one to the downstream is both sides'. The HTTP API is one more
// that publishes.
func (f fault) target() string {
	switch {
	case f.With == downstream:
		return f.Target + " to " + downstream
	case f.Target == api:
		return "publisher " + api
	}
	return f.Target
}

// A draft draws the faults of one kind.
type draft struct {
	what   string
	weight int
	draw   func(r *rand.Rand, f *fault)
}

// Faults that are drawn only if they are asked for.
const (
	diskFull      = "disk full"
	resetConsumer = "reset consumer"
)

// drafts are the kinds of faults. What each does is in apply.go.
func drafts() []draft {
	return []draft{
		{"kill", 24, func(r *rand.Rand, f *fault) { f.Target, f.For = pick(r, everyone()), within(r, 0, 8) }},
		{"terminate", 8, func(r *rand.Rand, f *fault) { f.Target, f.For = pick(r, everyone()), within(r, 0, 3) }},
		{"freeze", 10, drawFreeze},
		{"step down", 14, drawStepDown},
		{"cut", 20, drawCut},
		{"isolate", 10, drawIsolate},
		{"slow", 6, func(r *rand.Rand, f *fault) {
			f.Target, f.For = pick(r, slices.Concat(servers(), workers(), schedulers())), within(r, 4, 12)
			f.With = pick(r, []string{"256kbit", "1mbit", "4mbit"})
		}},
		{"reset links", 8, func(r *rand.Rand, f *fault) { f.Target = pick(r, everyone()) }},
		{diskFull, 4, func(r *rand.Rand, f *fault) { f.Target, f.For = smallDisk, within(r, 3, 10) }},
		{"store full", 4, func(r *rand.Rand, f *fault) { f.Target, f.For = smallDisk, within(r, 3, 10) }},
		{"upgrade", 3, func(r *rand.Rand, f *fault) { f.Target, f.With = "workers", "version 2" }},
		{"recreate", 5, drawConsumer},
		{resetConsumer, 3, drawConsumer},
		{"outage", 6, func(r *rand.Rand, f *fault) {
			f.Target, f.For = downstream, within(r, 3, 12)
			f.With = pick(r, []string{"gone", "503"})
		}},
	}
}

func drawFreeze(r *rand.Rand, f *fault) {
	if r.IntN(2) == 0 {
		f.Target, f.For = pick(r, everyone()), within(r, 1, 9)
		return
	}
	// Beyond AckWait: what it holds is given to another meanwhile.
	f.Target, f.For = pick(r, slices.Concat(workers(), schedulers())), within(r, 32, 40)
}

func drawStepDown(r *rand.Rand, f *fault) {
	switch r.IntN(5) {
	case 0:
		f.Target = "meta"
	case 1, 2:
		f.Target, f.With = "stream", pick(r, streams())
	default:
		drawConsumer(r, f)
	}
}

// drawConsumer draws a stream's consumer by its place among their names.
func drawConsumer(r *rand.Rand, f *fault) {
	f.Target, f.With = fmt.Sprintf("consumer %d", r.IntN(8)), pick(r, streams()[:2])
}

// itsServer is the one that a client is connected to when the fault begins.
const itsServer = "its server"

// drawCut draws a link that goes silent in one direction or both. That of a client
// may be silent for so long that it has to notice.
func drawCut(r *rand.Rand, f *fault) {
	f.For = within(r, 3, 15)
	switch r.IntN(6) {
	case 0, 1:
		two := r.Perm(3)
		f.Target, f.With = servers()[two[0]], servers()[two[1]]
	case 2, 3:
		f.Target, f.With = pick(r, ours()), itsServer
		if r.IntN(2) == 0 {
			f.For = within(r, 40, 70)
		}
	default:
		f.Target, f.With = pick(r, workers()), downstream
	}
	f.What = pick(r, []string{"cut", "cut one way", "cut other way"})
}

// drawIsolate draws a server that nobody reaches, or a worker that reaches no
// server, but the downstream: then also for longer than the servers wait for a
// sign of it, so that others do its jobs at the same time.
func drawIsolate(r *rand.Rand, f *fault) {
	f.With, f.For = "all servers", within(r, 3, 12)
	if f.Target = pick(r, slices.Concat(servers(), workers())); slices.Contains(workers(), f.Target) && r.IntN(2) == 0 {
		f.For = within(r, 35, 50)
	}
}

// A plan is what decides which faults there are.
type plan struct {
	Seed uint64
	For  time.Duration
	Only []string // kinds of faults; empty means all
	// Mode is empty, or what the run is about besides: soaking or overloading.
	Mode string
}

// check reports a kind of fault that there is none of.
func (p plan) check() error {
	var kinds []string
	for _, d := range drafts() {
		kinds = append(kinds, d.what)
	}
	for _, what := range p.Only {
		if !slices.Contains(kinds, what) {
			return fmt.Errorf("no fault is called %q; there are %s", what, strings.Join(kinds, ", "))
		}
	}
	return nil
}

// raced reports whether the product is built with the race detector, as it is for
// every tenth seed.
func (p plan) raced() bool { return p.Mode == "" && p.Seed%10 == 3 }

// crowded reports whether many calls are on their way at any time, as they are for
// every second seed.
func (p plan) crowded() bool { return p.Mode == "" && p.Seed%2 == 0 }

// has reports whether faults of a kind are drawn. Those that make servers lose
// messages by themselves have to be asked for: see the README.
func (p plan) has(what string) bool {
	if len(p.Only) > 0 {
		return slices.Contains(p.Only, what)
	}
	return what != diskFull && what != resetConsumer
}

// draw draws the faults of a plan, by when they begin.
func draw(p plan) []fault {
	if p.Mode == overloading {
		return nil
	}
	kinds := slices.DeleteFunc(drafts(), func(d draft) bool { return !p.has(d.what) })
	r := rand.New(rand.NewPCG(p.Seed, 1))
	n := max(3, int(float64(8+r.IntN(7))*p.For.Minutes()))
	if p.Mode == soaking {
		n = int(p.For / faultEvery)
	}
	var all []fault
	for tries := 0; len(all) < n && tries < 50*n; tries++ {
		f := drawOne(r, kinds)
		f.For = min(f.For, max(0, p.For-5*time.Second)) // as much as fits
		room := p.For - f.For - 4*time.Second           // some time goes before the first, and to what comes after the last
		f.At = 2*time.Second + time.Duration(r.Int64N(int64(room)+1)).Round(100*time.Millisecond)
		if p.Mode == soaking {
			f.At = faultEvery * time.Duration(len(all)+1)
		}
		if f.At+f.For < p.For && !slices.ContainsFunc(all, f.clashes) {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b fault) int { return cmp.Compare(a.At, b.At) })
	return all
}

func drawOne(r *rand.Rand, kinds []draft) fault {
	total := 0
	for _, d := range kinds {
		total += d.weight
	}
	n := r.IntN(total)
	for _, d := range kinds {
		if n < d.weight {
			f := fault{What: d.what}
			d.draw(r, &f)
			return f
		}
		n -= d.weight
	}
	panic("unreachable")
}

// clashes reports whether two faults would undo each other: both are of the
// same processes, or of the same links, and one would begin before the other
// has ended.
func (f fault) clashes(g fault) bool {
	if f.What == "upgrade" && g.What == "upgrade" {
		return true
	}
	const apart = 2 * time.Second // what is started again has begun by then
	if f.At > g.At+g.takes()+apart || g.At > f.At+f.takes()+apart {
		return false
	}
	return slices.ContainsFunc(f.claims(), func(c string) bool { return slices.Contains(g.claims(), c) })
}

// takes is how long a fault has its claims.
func (f fault) takes() time.Duration {
	switch f.What {
	case "upgrade":
		return 20 * time.Second
	case "terminate", "store full":
		return f.For + 5*time.Second
	}
	if len(f.ways()) > 0 {
		return f.For + patience
	}
	return f.For
}

// claims are what nothing else may touch while a fault lasts.
func (f fault) claims() []string {
	switch f.What {
	case "kill", "terminate", "freeze", diskFull, "outage":
		return []string{f.Target}
	case "store full": // it is filled through its link
		return append(links([]string{f.Target}), f.Target, "rate of "+f.Target)
	case "upgrade":
		return workers()
	case "cut", "cut one way", "cut other way":
		if f.With == itsServer { // another link each time
			return links([]string{f.Target})
		}
		return links([]string{f.Target, f.With})
	case "isolate":
		if slices.Contains(servers(), f.Target) {
			return links(everyone())
		}
		return append(links([]string{f.Target}), f.Target) // one that begins meanwhile gives up
	case "slow":
		return []string{"rate of " + f.Target}
	}
	return nil
}

func links(of []string) (all []string) {
	for _, name := range of {
		all = append(all, "link "+name)
	}
	return all
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// within is a time of so many seconds.
func within(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from*1000+r.IntN((to-from)*10+1)*100) * time.Millisecond
}

// skews are those of a plan's run; one that is overloaded has no other trouble.
func (p plan) skews() map[string]time.Duration {
	if p.Mode == overloading {
		return nil
	}
	return skews(p.Seed)
}

// skews draws how wrong the clock of each worker and scheduler is: mostly a
// little.
func skews(seed uint64) map[string]time.Duration {
	r := rand.New(rand.NewPCG(seed, 2))
	wrong := map[string]time.Duration{}
	for _, name := range slices.Concat(workers(), schedulers()) {
		switch r.IntN(8) {
		case 0:
			wrong[name] = 30 * time.Second
		case 1:
			wrong[name] = -30 * time.Second
		default:
			wrong[name] = time.Duration(r.IntN(4001)-2000) * time.Millisecond
		}
	}
	return wrong
}
