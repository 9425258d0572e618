package storm

import (
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan/budget"
)

// fleetRun is a run of Mulligan's workers.
func fleetRun(t *testing.T, name string, load float64) *world {
	t.Helper()
	w := newWorld(named(t, name, load)[0], 1)
	w.play(policy(t, "Mulligan").clients(w))
	return w
}

func TestEachJobIsSettledWithinItsAttempts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"standard", "outage", "ratelimit"} {
		for _, j := range fleetRun(t, name, 0.6).jobs {
			if j.settled.Before(j.arrived) || j.attempts < 1 || j.attempts > 4 {
				t.Fatalf("%s: a job that arrived at %v had %d attempts and was settled at %v", name, j.arrived, j.attempts, j.settled)
			}
		}
	}
}

func TestAUsersRetriesKeepToTheUsersRate(t *testing.T) {
	t.Parallel()
	w := fleetRun(t, "poison", 0.7)
	retries, last := 0, time.Duration(0)
	for _, j := range w.jobs {
		if j.user == poisonUser {
			retries += j.attempts - 1
			last = max(last, j.settled.Sub(w.began))
		}
	}
	rate, err := budget.Rate{}.Normal()
	if err != nil {
		t.Fatal(err)
	}
	if most := float64(rate.Burst) + rate.PerSecond*last.Seconds(); retries < 1000 || float64(retries) > most {
		t.Errorf("%d retries within %v, of at most %.0f", retries, last, most)
	}
}
