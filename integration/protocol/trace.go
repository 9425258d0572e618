package main

import "slices"

// A view gives the names of one trace to what each state of it names in its own
// way.
type view struct {
	addrs [64]int8
	next  int8
	procs map[string]string
}

// trace tells how a state was reached, by going there again.
func (x *search) trace(i int32) (told []string) {
	var path []int32
	for ; i > 0; i = x.parent[i] {
		path = append(path, i)
	}
	v := view{next: 2, procs: map[string]string{"W1": "W1", "W2": "W2", "S1": "S1", "S2": "S2"}}
	v.addrs[1] = 1
	for _, i := range slices.Backward(path) {
		before := x.states[x.parent[i]]
		reached := false
		x.model.next(before, func(a act, to State) {
			after, n := rename(x.model.tidy(to))
			if reached || after != x.states[i] {
				return
			}
			reached = true
			v.meet(before.next, to.next)
			told = append(told, v.tell(a, before.rec, to.rec))
			v.follow(n)
		})
	}
	return told
}

// meet names the addresses that are new.
func (v *view) meet(from, to int8) {
	for a := from; a < to; a++ {
		v.addrs[a] = v.next
		v.next++
	}
}

// tell is what was done, and the record if it was changed.
func (v *view) tell(a act, before, after record) string {
	if who, ok := v.procs[a.who]; ok {
		a.who = who
	}
	a.m.addr, a.made.addr = v.addrs[a.m.addr], v.addrs[a.made.addr]
	t := a.String()
	if before != after {
		after.mover, after.starter = v.addrs[after.mover], v.addrs[after.starter]
		t += " -> " + after.String()
	}
	return t
}

// follow takes the names along when the state is renamed.
func (v *view) follow(n names) {
	var addrs [64]int8
	for a, to := range n.to {
		if to != 0 {
			addrs[to] = v.addrs[a]
		}
	}
	addrs[nobody] = v.addrs[nobody]
	v.addrs = addrs
	if n.workers {
		v.procs["W1"], v.procs["W2"] = v.procs["W2"], v.procs["W1"]
	}
	if n.schedulers {
		v.procs["S1"], v.procs["S2"] = v.procs["S2"], v.procs["S1"]
	}
}
