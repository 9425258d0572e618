package storm

import (
	"testing"
	"time"
)

// A run of 60 s with ten jobs a second and a fault from 10 s to 20 s, in which
// nothing succeeds until a time.
func measured(until time.Duration, after float64) *world {
	w := newWorld(Case{Horizon: time.Minute, From: 10 * time.Second, To: 20 * time.Second,
		Load: 0.1, Servers: 10, Service: 100 * time.Millisecond}, 1)
	for at := time.Duration(0); at < w.c.Horizon; at += bin {
		i := int(at / bin)
		w.series[arrivals][i] = 1
		if at < w.c.From || at >= until {
			w.series[successes][i] = after
		}
	}
	return w
}

func TestRecoveryIsWhenSuccessesKeepUpForGood(t *testing.T) {
	for _, tt := range []struct {
		name  string
		until time.Duration
		after float64 // successes per arrival from then on
		want  float64 // seconds after the fault, less than one early; -1 for never
	}{
		{"at once", 20 * time.Second, 1, 0},
		{"five seconds after the fault", 25 * time.Second, 1, 5},
		{"with a backlog, too, only new arrivals count", 25 * time.Second, 1.4, 5},
		{"with one job in a hundred lost", 25 * time.Second, 0.99, 5},
		{"not while a fifth fails", 25 * time.Second, 0.8, -1},
		{"not before the end", time.Minute, 1, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := measured(tt.until, tt.after).recovery()
			switch {
			case tt.want < 0 && got == nil:
			case got == nil || tt.want < 0:
				t.Errorf("got %v, want %v s", got, tt.want)
			case *got > tt.want || *got < tt.want-1.1:
				t.Errorf("got %v s, want %v s", *got, tt.want)
			}
		})
	}
}

func TestDrainedIsWhenNoOldJobIsOpen(t *testing.T) {
	w := measured(20*time.Second, 1)
	add := func(user string, from, to time.Duration) {
		w.jobs = append(w.jobs, &job{user: user, arrived: w.began.Add(from), settled: w.began.Add(to)})
	}
	add("ada", 15*time.Second, 24*time.Second)
	add("ada", 23*time.Second, 27*time.Second)
	add("ada", 40*time.Second, 50*time.Second) // another trouble, later
	add(poisonUser, 0, time.Minute)
	if got := w.drained(); got == nil || *got != 7 {
		t.Errorf("got %v, want 7 s after the fault", got)
	}
	add("bob", 20*time.Second, 2*time.Minute)
	if got := w.drained(); got != nil {
		t.Errorf("with a job open until the end: got %v s, want never", *got)
	}
}
