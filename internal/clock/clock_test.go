package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAClockFollowsTheServers(t *testing.T) {
	type answer struct{ ahead, trip time.Duration } // the machine's clock before the server's, and how long the question took
	const ms = time.Millisecond
	for _, tc := range []struct {
		name    string
		answers []answer
		late    time.Duration // the clock behind the server's, negative: what is planned by it comes so much late
		said    time.Duration
	}{
		{"one that is right", []answer{{0, 20 * ms}}, -10 * ms, 0},
		{"a quick answer is more exact", []answer{{0, 20 * ms}, {0, 2 * ms}}, -1 * ms, 0},
		{"a slow one changes nothing", []answer{{0, 2 * ms}, {0, 5000 * ms}}, -1 * ms, 0},
		{"a machine that is a little behind", []answer{{-90 * ms, 2 * ms}}, -1 * ms, 0},
		{"a machine that is ahead", []answer{{30_000 * ms, 20 * ms}}, -10 * ms, 30_000*ms - 10*ms},
		{"a machine that is behind", []answer{{-2000 * ms, 20 * ms}, {-2000 * ms, 20 * ms}}, -10 * ms, -2000*ms - 10*ms},
		{"one that drifts is put right again", []answer{{0, 2 * ms}, {150 * ms, 2 * ms}}, -1 * ms, 149 * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c Clock
				var said time.Duration
				for _, a := range tc.answers {
					asked := time.Now()
					server := asked.Add(a.trip / 2).Add(-a.ahead).Round(0)
					time.Sleep(a.trip)
					said = c.Set(Sample{Asked: asked, Answered: time.Now(), Server: server})
				}
				time.Sleep(time.Hour)
				server := time.Now().Round(0).Add(-tc.answers[len(tc.answers)-1].ahead)
				if late := server.Sub(c.Now()); late != tc.late || said != tc.said {
					t.Errorf("it is %v behind the server's and says that the machine is %v ahead, want %v and %v", late, said, tc.late, tc.said)
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
