package main

import (
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"
)

// A Result is what one exploration found.
type Result struct {
	States, AtRest int
	Full           bool // not cut off
	First          map[string][]string
	Count          map[string]int
}

// Violations are the findings that are no notes.
func (r Result) Violations() (found []string) {
	for v := range r.First {
		if !strings.HasPrefix(v, "note:") {
			found = append(found, v)
		}
	}
	slices.Sort(found)
	return found
}

// A search visits every state that can be reached, the nearest first.
type search struct {
	model  *Model
	limit  int
	live   bool // look for livelocks too
	seed   maphash.Seed
	seen   map[uint64]int32 // hash to index
	states []State
	parent []int32
	back   [][2]int32 // to and from, of steps that are no mishaps
	atRest []int32
	Result
}

// Explore visits at most limit states. With live it also looks for states from
// which no rest can be reached without a mishap. With first it ends at the first
// violation.
func (c *Model) Explore(limit int, live, first bool) Result {
	x := &search{model: c, limit: limit, live: live, seed: maphash.MakeSeed(), seen: map[uint64]int32{}}
	x.Result = Result{Full: true, First: map[string][]string{}, Count: map[string]int{}}
	x.add(c.canon(c.initial()), -1)
	for i := int32(0); int(i) < len(x.states); i++ {
		x.visit(i)
		if first && len(x.Violations()) > 0 || len(x.states) > limit {
			x.Full = false
			break
		}
	}
	x.States, x.AtRest = len(x.states), len(x.atRest)
	if live && x.Full {
		x.livelocks()
	}
	return x.Result
}

func (x *search) add(s State, parent int32) int32 {
	h := maphash.Comparable(x.seed, s)
	for ; ; h++ { // two states of one hash are neighbours
		i, ok := x.seen[h]
		if !ok {
			break
		}
		if x.states[i] == s {
			return i
		}
	}
	i := int32(len(x.states))
	x.seen[h] = i
	x.states, x.parent = append(x.states, s), append(x.parent, parent)
	return i
}

func (x *search) visit(i int32) {
	s := x.states[i]
	rests := s.bad == fine
	if s.bad == fine {
		x.model.next(s, func(a act, to State) {
			j := x.add(x.model.canon(to), i)
			if a.mishap {
				return
			}
			if rests = false; x.live {
				x.back = append(x.back, [2]int32{j, i})
			}
		})
	}
	if rests {
		x.atRest = append(x.atRest, i)
	}
	for _, v := range x.model.check(&s, rests) {
		x.found(v, i)
	}
}

func (x *search) found(v string, i int32) {
	x.Count[v]++
	if _, ok := x.First[v]; !ok {
		x.First[v] = x.trace(i)
	}
}

// livelocks finds the states from which no rest can be reached without a mishap,
// by going back from those at rest.
func (x *search) livelocks() {
	slices.SortFunc(x.back, func(a, b [2]int32) int { return int(a[0] - b[0]) })
	start := make([]int32, len(x.states)+1)
	for _, b := range x.back {
		start[b[0]+1]++
	}
	for i := 1; i < len(start); i++ {
		start[i] += start[i-1]
	}
	reaches := make([]bool, len(x.states))
	for _, i := range x.atRest {
		reaches[i] = true
	}
	for todo := slices.Clone(x.atRest); len(todo) > 0; {
		j := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, b := range x.back[start[j]:start[j+1]] {
			if !reaches[b[1]] {
				reaches[b[1]] = true
				todo = append(todo, b[1])
			}
		}
	}
	for i := range reaches {
		if !reaches[i] && x.states[i].bad == fine {
			x.found("livelock: never comes to rest", int32(i))
		}
	}
}

// Print writes what was found, with the shortest way to each finding if traces.
func (r Result) Print(w io.Writer, traces bool) {
	how := "complete"
	if !r.Full {
		how = "CUT OFF"
	}
	fmt.Fprintf(w, "   %d states, %d at rest, %s, %d violations\n", r.States, r.AtRest, how, len(r.Violations()))
	var found []string
	for v := range r.First {
		found = append(found, v)
	}
	slices.Sort(found)
	for _, v := range found {
		fmt.Fprintf(w, "     %s (%d states, shortest %d steps)\n", v, r.Count[v], len(r.First[v]))
		for i, t := range r.First[v] {
			if traces {
				fmt.Fprintf(w, "       %2d %s\n", i+1, t)
			}
		}
	}
}
