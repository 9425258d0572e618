package budget

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNumbersThatCanHoldAStormAreWarnedOf(t *testing.T) {
	standard := Load{Downstream: "mail", Capacity: 100, Peak: 70, Timeout: time.Second}
	with := func(change func(*Load)) Load {
		l := standard
		change(&l)
		return l
	}
	for _, tt := range []struct {
		name    string
		load    Load
		workers int
		want    []string // what a line says, one for each
	}{
		{"70 of 100 a second with four workers is fine", standard, 4, nil},
		{"a peak just safe", with(func(l *Load) { l.Peak = 78.1 }), 4, nil},
		{"a peak too high", with(func(l *Load) { l.Peak = 78.2 }), 4,
			[]string{"downstream mail: a peak of 78.2/s is 90/s with its retries, and 90/s are safe: keep the peak under 78.2/s, or have a capacity of over 100/s"}},
		{"a ratio too high", with(func(l *Load) { l.Limits.Ratio = 0.5 }), 4, []string{"is 109/s with its retries, and 90/s are safe: keep the peak under 57.3/s, or have a capacity of over 121/s"}},
		{"exactly as much as is safe is too much", with(func(l *Load) { l.Peak, l.Limits.Ratio, l.Capacity, l.Timeout = 8, 1, 20, 0 }), 2, []string{"8/s is 18/s with its retries, and 18/s are safe"}},
		{"floors that are too much by themselves", with(func(l *Load) { l.Limits.Floor = 30 }), 3, []string{"lower ratio, floor or the number of workers, or have a capacity of over 186/s"}},
		{"floors are too much without a peak too", with(func(l *Load) { l.Peak, l.Limits.Floor = 0, 30 }), 3, []string{"a peak of 0/s is 90/s with its retries, and 90/s are safe: lower ratio, floor"}},
		{"so many at once as are safe", with(func(l *Load) { l.Limits.Slots = 20 }), 4, nil},
		{"more at once", with(func(l *Load) { l.Limits.Slots = 21 }), 4,
			[]string{"downstream mail: 4 workers with a concurrency of 21 make 84 calls at once, and within 1s it answers 80 safely: lower its concurrency to 20"}},
		{"a short timeout", with(func(l *Load) { l.Timeout = 30 * time.Millisecond }), 4, []string{"within 30ms it answers 2.4 safely: lower its concurrency to 1, with a worker count of at most 2"}},
		{"a timeout in which nothing is served", with(func(l *Load) { l.Timeout = 5 * time.Millisecond }), 4, []string{"answers 0.4 safely: give its calls a longer timeout"}},
		{"both", with(func(l *Load) { l.Capacity = 50 }), 4, []string{"a peak of 70/s", "64 calls at once"}},
		{"no capacity is no warning", with(func(l *Load) { l.Capacity, l.Peak = 0, 1e6 }), 4, nil},
		{"a negative one neither", with(func(l *Load) { l.Capacity = -1 }), 4, nil},
		{"one that is no number neither", with(func(l *Load) { l.Capacity = math.NaN() }), 4, nil},
		{"a peak that is no number is not warned of", with(func(l *Load) { l.Peak = math.NaN() }), 4, nil},
		{"no timeout is no warning of calls at once", with(func(l *Load) { l.Timeout, l.Limits.Slots = 0, 1000 }), 4, nil},
		{"limits that are refused elsewhere are not warned of", with(func(l *Load) { l.Limits.Ratio, l.Peak = 2, 1e6 }), 4, nil},
		{"a peak without end is one of a thousand million", with(func(l *Load) { l.Peak = math.Inf(1) }), 4,
			[]string{"a peak of 1000000000/s is 1100000004/s with its retries, and 90/s are safe: keep the peak under 78.2/s, or have a capacity of over 1222222227/s"}},
		{"one of three hundred digits, too", with(func(l *Load) { l.Peak = 1e300 }), 4, []string{"a peak of 1000000000/s"}},
		{"a capacity without end is enough", with(func(l *Load) { l.Capacity, l.Peak = math.Inf(1), 1e6 }), 4, nil},
		{"a capacity of next to nothing is shown as nothing", with(func(l *Load) { l.Capacity = 1e-300 }), 4,
			[]string{"81/s with its retries, and 0/s are safe: lower ratio, floor or the number of workers, or have a capacity of over 90/s", "it answers 0 safely: give its calls a longer timeout"}},
		{"a peak of next to nothing, too", with(func(l *Load) { l.Peak, l.Limits.Floor = 1e-300, 30 }), 3, []string{"a peak of 0/s is 90/s"}},
		{"no workers are one", with(func(l *Load) { l.Limits.Slots = 81 }), 0, []string{"a concurrency of 81 make 81 calls"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := StormWarnings(tt.workers, tt.load)
			ok := slices.EqualFunc(got, tt.want, strings.Contains)
			if !ok || strings.Contains(strings.Join(got, ""), "\n") {
				t.Errorf("%d workers of %+v:\ngot  %q\nwant %q", tt.workers, tt.load, got, tt.want)
			}
		})
	}
}
