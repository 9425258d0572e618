package budget

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestARateHasALimit(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate Rate
		want Rate
		bad  bool
	}{
		{"no rate is one retry a second with a burst of ten", Rate{}, Rate{PerSecond: 1, Burst: 10}, false},
		{"a rate alone gets the default burst", Rate{PerSecond: 0.5}, Rate{PerSecond: 0.5, Burst: 10}, false},
		{"a burst alone gets the default rate", Rate{Burst: 3}, Rate{PerSecond: 1, Burst: 3}, false},
		{"the highest rate is allowed", Rate{PerSecond: 1e6, Burst: 1e6}, Rate{PerSecond: 1e6, Burst: 1e6}, false},
		{"a negative rate is refused", Rate{PerSecond: -1}, Rate{}, true},
		{"a rate without an end is refused", Rate{PerSecond: math.Inf(1)}, Rate{}, true},
		{"a rate that is no number is refused", Rate{PerSecond: math.NaN()}, Rate{}, true},
		{"a rate over a million is refused", Rate{PerSecond: 1e6 + 1}, Rate{}, true},
		{"a burst that takes thirty days is allowed", Rate{PerSecond: 1.0 / (24 * 3600), Burst: 30}, Rate{PerSecond: 1.0 / (24 * 3600), Burst: 30}, false},
		{"a burst that takes longer is refused", Rate{PerSecond: 1.0 / (24 * 3600), Burst: 31}, Rate{}, true},
		{"a rate of next to nothing is refused", Rate{PerSecond: 1e-300}, Rate{}, true},
		{"a negative burst is refused", Rate{Burst: -1}, Rate{}, true},
		{"a burst over a million is refused", Rate{Burst: 1e6 + 1}, Rate{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.rate.Normal()
			if (err != nil) != tt.bad || !tt.bad && got != tt.want {
				t.Errorf("%+v is %+v, %v; want %+v, refused = %v", tt.rate, got, err, tt.want, tt.bad)
			}
		})
	}
}

func instant(seconds float64) time.Time {
	return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

func TestAPlaceIsAsSoonAsTheAllowanceAllows(t *testing.T) {
	const now = 100
	for _, tt := range []struct {
		name     string
		rate     Rate
		whole    float64
		at, next float64
	}{
		{"the first of a burst runs at once", Rate{1, 3}, 0, now, now + 1},
		{"the second of a burst runs at once", Rate{1, 3}, now + 1, now, now + 2},
		{"the last of a burst runs at once", Rate{1, 3}, now + 2, now, now + 3},
		{"the next one waits for its place", Rate{1, 3}, now + 3, now + 1, now + 4},
		{"ten places later it waits ten times as long", Rate{1, 3}, now + 12, now + 10, now + 13},
		{"a part of an interval is waited for", Rate{1, 3}, now + 2.25, now + 0.25, now + 3.25},
		{"a burst of one has one place an interval", Rate{2, 1}, now + 0.5, now + 0.5, now + 1},
		{"what was not used for long is no more than the burst", Rate{1, 3}, now - 1000, now, now + 1},
		{"a slow rate has long intervals", Rate{0.1, 1}, now + 10, now + 10, now + 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, next := tt.rate.place(instant(tt.whole), instant(now))
			if !at.Equal(instant(tt.at)) || !next.Equal(instant(tt.next)) {
				t.Errorf("got %v and whole at %v, want %v and %v", at, next, instant(tt.at), instant(tt.next))
			}
		})
	}
}

// A crowd is a random sequence of retries of one user, oldest first.
type crowd struct {
	rate    Rate
	longest time.Duration // between asking and due
	asks    []Want
}

func randomCrowd(rng *rand.Rand) crowd {
	c := crowd{rate: Rate{PerSecond: math.Exp(rng.Float64()*10 - 5), Burst: 1 + rng.IntN(20)}}
	if rng.IntN(2) == 0 {
		c.longest = time.Duration(rng.Int64N(int64(30 * c.rate.interval())))
	}
	now := instant(0)
	for range 1 + rng.IntN(150) {
		if rng.IntN(3) > 0 { // the others come at the same instant
			now = now.Add(time.Duration(rng.ExpFloat64() * float64(c.rate.interval())))
		}
		a := Want{Now: now, Due: now, Deadline: now.Add(time.Duration(rng.Int64N(int64(60*c.rate.interval()))) + 1)}
		if c.longest > 0 {
			a.Due = now.Add(time.Duration(rng.Int64N(int64(c.longest))))
		}
		c.asks = append(c.asks, a)
	}
	return c
}

func TestNoWindowHasMorePlacesThanTheRateAllows(t *testing.T) {
	for seed := range uint64(300) {
		c := randomCrowd(rand.New(rand.NewPCG(seed, 1)))
		if bad := c.check(); bad != "" {
			t.Fatalf("seed %d, rate %+v, delays of at most %v: %s", seed, c.rate, c.longest, bad)
		}
	}
}

// check lets the crowd take its places and says what is wrong with them.
func (c *crowd) check() string {
	var s UserState
	var granted []time.Time
	for i := range c.asks {
		a, before := c.asks[i], s
		p := s.Take(c.rate, a)
		switch {
		case p.Denied && s.Whole != before.Whole:
			return fmt.Sprintf("retry %d was denied and took a place", i)
		case p.Denied:
			continue
		case p.At.Before(a.Due) || !p.At.Before(a.Deadline):
			return fmt.Sprintf("retry %d, due %v and to start before %v, has its place at %v", i, a.Due, a.Deadline, p.At)
		case c.longest == 0 && len(granted) > 0 && p.At.Before(granted[len(granted)-1]):
			return fmt.Sprintf("retry %d has its place before the one that asked earlier", i)
		}
		granted = append(granted, p.At)
	}
	if got := s.Granted + s.Reserved; got != len(granted) || got+s.Denied != len(c.asks) {
		return fmt.Sprintf("counted %+v for %d places given to %d retries", s, len(granted), len(c.asks))
	}
	return c.windows(granted)
}

// windows compares every window between two places with what the rate allows.
// A retry takes its place when it is planned, so what was planned while the
// longest delay passed may come together at its end.
func (c *crowd) windows(granted []time.Time) string {
	slices.SortFunc(granted, time.Time.Compare)
	for i, from := range granted {
		for n, to := range granted[i:] {
			w := to.Sub(from) + c.longest
			if most := float64(c.rate.Burst) + c.rate.PerSecond*w.Seconds(); float64(n+1) > most+1 {
				return fmt.Sprintf("%d places within %v, %.1f are allowed", n+1, to.Sub(from), most)
			}
		}
	}
	return ""
}

func TestARetryThatIsDeniedTakesNothing(t *testing.T) {
	r := Rate{PerSecond: 1, Burst: 1}
	s := UserState{Whole: instant(60)}
	late := Want{Now: instant(0), Due: instant(0), Deadline: instant(60)}
	if p := s.Take(r, late); !p.Denied || s != (UserState{Whole: instant(60), Denied: 1}) {
		t.Errorf("with its place at its deadline: got %+v and state %+v, want it denied and nothing taken", p, s)
	}
	inTime := Want{Now: instant(0), Due: instant(0), Deadline: instant(61)}
	if p := s.Take(r, inTime); p.Denied || !p.At.Equal(instant(60)) || s.Reserved != 1 {
		t.Errorf("the next one got %+v and state %+v, want the place that the denied one left", p, s)
	}
}
