package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAClockFollowsTheServers(t *testing.T) {
	const trip = 20 * time.Millisecond
	for _, tc := range []struct {
		name   string
		ahead  []time.Duration // the machine's clock before the server's, at each question
		off    time.Duration   // of the clock from the server's, in the end
		warned time.Duration
	}{
		{"a clock that is right stays as it is", []time.Duration{0, 0}, 0, 0},
		{"a few milliseconds are no reason to move it", []time.Duration{90 * time.Millisecond, -90 * time.Millisecond}, -90 * time.Millisecond, 0},
		{"a machine that is ahead", []time.Duration{30 * time.Second}, 0, 30 * time.Second},
		{"a machine that is behind", []time.Duration{-2 * time.Second, -2 * time.Second}, 0, -2 * time.Second},
		{"one that drifts is put right again", []time.Duration{0, 150 * time.Millisecond}, 0, 150 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c Clock
				var warned time.Duration
				for _, ahead := range tc.ahead {
					asked := time.Now()
					server := asked.Add(trip / 2).Add(-ahead).Round(0)
					time.Sleep(trip)
					warned = c.Set(Sample{Asked: asked, Answered: time.Now(), Server: server})
				}
				time.Sleep(time.Hour)
				last := tc.ahead[len(tc.ahead)-1]
				if off := c.Now().Sub(time.Now().Round(0).Add(-last)); off != tc.off || warned != tc.warned {
					t.Errorf("it is %v off the server's and says that the machine is %v ahead, want %v and %v", off, warned, tc.off, tc.warned)
				}
				if left := c.Until(c.Now().Add(time.Minute)); left != time.Minute {
					t.Errorf("until in a minute: %v", left)
				}
			})
		})
	}
}

func TestTheZeroClockIsTheMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Clock
		if now := time.Now(); !c.Now().Equal(now) {
			t.Errorf("got %v, want %v", c.Now(), now)
		}
	})
}
