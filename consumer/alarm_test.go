package consumer

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan/budget"
)

// A slot has one alarm for all its jobs: what was set for one must not ring for the
// next, nor late for it.
func TestAnAlarmRingsForTheJobItWasSetFor(t *testing.T) {
	type job struct{ begins, limit, ends time.Duration }
	for _, tt := range []struct {
		name string
		jobs []job
		want []time.Duration // when it rings
	}{
		{"none that ends in time", []job{{0, 3, 1}, {1, 3, 3}, {4, 3, 5}}, nil},
		{"one that goes on", []job{{0, 3, 9}}, []time.Duration{3}},
		{"one with less time, after one with more", []job{{0, 30, 1}, {1, 2, 9}}, []time.Duration{3}},
		{"one with more time, after one with less", []job{{0, 3, 1}, {1, 30, 40}}, []time.Duration{31}},
		{"one after the other", []job{{0, 3, 9}, {10, 3, 20}}, []time.Duration{3, 13}},
		{"one that begins long after the timer was over", []job{{0, 3, 1}, {50, 3, 60}}, []time.Duration{53}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits, err := budget.Limits{}.Normal()
				if err != nil {
					t.Fatal(err)
				}
				d, err := budget.NewDownstream(limits, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				l := &lane{w: &Worker{Log: zerolog.Nop()}, calls: d, phase: budget.PhaseClosed}
				a, began := &alarm{lane: l}, time.Now()
				var rang []time.Duration
				for _, j := range tt.jobs {
					time.Sleep(time.Until(began.Add(j.begins * time.Second)))
					c := &calls{has: true, own: own{kept: func(error) { rang = append(rang, time.Since(began)/time.Second) }}}
					a.set(time.Now().Add(j.limit*time.Second), c)
					time.Sleep(time.Until(began.Add(j.ends * time.Second)))
					synctest.Wait()
					if hangs := j.begins+j.limit < j.ends; hangs != (l.overdue.Load() == 1) {
						t.Errorf("%d handlers are overdue after %v", l.overdue.Load(), j.ends*time.Second)
					}
					if a.stop(); l.overdue.Load() != 0 {
						t.Error("it has ended, and is overdue")
					}
				}
				time.Sleep(time.Minute)
				if !slices.Equal(rang, tt.want) {
					t.Errorf("rang at %v, want %v", rang, tt.want)
				}
			})
		})
	}
}

// The timer may be over just as the next job begins: its ring waits for the lock.
func TestAnAlarmThatRingsLateIsNotTheNextJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, first, second := &alarm{lane: &lane{}}, &calls{}, &calls{}
		a.set(time.Now().Add(time.Second), first)
		late := time.Now().Add(time.Second)
		a.stop()
		if c := a.overdue(late); c != nil {
			t.Error("it rings for a job that has ended")
		}
		a.set(time.Now().Add(time.Minute), second)
		if c := a.overdue(late); c != nil {
			t.Error("it rings for a job that has just begun")
		}
		if c := a.overdue(time.Now().Add(time.Minute)); c != second {
			t.Error("it does not ring for a job whose time is up")
		}
		if c := a.overdue(time.Now().Add(time.Hour)); c != nil {
			t.Error("it rings twice")
		}
		a.end()
	})
}
