package storm

import (
	"container/heap"
	"time"
)

// clock is virtual time: it jumps from one event to the next.
type clock struct {
	now    time.Time
	events events
	serial uint64
}

// event is something that happens at a time. Of two at the same time the one
// that was planned first comes first, so that a seed has one course only.
type event struct {
	at     time.Time
	serial uint64
	do     func()
}

// at plans do for a time, or for now if it has passed.
func (c *clock) at(t time.Time, do func()) {
	if t.Before(c.now) {
		t = c.now
	}
	c.serial++
	heap.Push(&c.events, &event{t, c.serial, do})
}

func (c *clock) after(d time.Duration, do func()) { c.at(c.now.Add(d), do) }

// run lets time pass until nothing is planned any more.
func (c *clock) run() {
	for len(c.events) > 0 {
		e := heap.Pop(&c.events).(*event)
		c.now = e.at
		e.do()
	}
}

// events is a heap with the next event on top.
type events []*event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e events) Less(i, j int) bool {
	if e[i].at.Equal(e[j].at) {
		return e[i].serial < e[j].serial
	}
	return e[i].at.Before(e[j].at)
}
func (e *events) Push(x any) { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	return x
}
