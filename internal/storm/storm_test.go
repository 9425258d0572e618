package storm

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// named returns the cases of a name at a load.
func named(t *testing.T, name string, load float64) []Case {
	t.Helper()
	cases, err := Named(name, load)
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

func policy(t *testing.T, name string) Policy {
	t.Helper()
	i := slices.IndexFunc(Policies(), func(p Policy) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("no policy %q", name)
	}
	return Policies()[i]
}

// fared runs policies through a case with all seeds.
func fared(cases []Case, policies ...Policy) []Report {
	return Run(cases, policies, Seeds{First: 1, N: seeds}, nil)
}

func (r Report) String() string {
	at := func(s *float64) string {
		if s == nil {
			return "never"
		}
		return fmt.Sprintf("%.1f s", *s)
	}
	w := r.Worst
	return fmt.Sprintf("%s at %.0f %%, %s, worst of %d seeds: success %.2f %%, %.0f dead, %.2f attempts in the fault and %.3f after, %.1f %% wasted, recovered in %s (never in %d), drained in %s, p99 %.2f s",
		r.Case, 100*r.Load, r.Policy, r.Seeds, 100*w.Success, w.Dead, w.InFault, w.After, 100*w.Wasted, at(w.Recovery), r.Never, at(w.Drained), w.P99)
}

// within reports whether a time came, and came in time.
func within(s *float64, most float64) bool { return s != nil && *s <= most }

func TestWithoutABudgetAStormOutlivesTheFault(t *testing.T) {
	t.Parallel()
	for _, r := range fared(named(t, "standard", 0.7), policy(t, "immediate ×4"), policy(t, "backoff ×4"), policy(t, "backoff + jitter ×4")) {
		if r.Never != r.Seeds || r.After < 3.9 || r.Wasted < 0.8 || r.Success > 0.25 {
			t.Errorf("want that the provider is kept down for good: %v", r)
		}
	}
}

func TestABudgetEndsAStormAndGivesJobsUp(t *testing.T) {
	t.Parallel()
	r := fared(named(t, "standard", 0.7), policy(t, "jitter + 10 % budget"))[0]
	if !within(r.Worst.Recovery, 12) || r.After > 1.01 || r.Success > 0.95 {
		t.Errorf("want it over within some ten seconds, but a tenth of the jobs dead: %v", r)
	}
}

func TestMulliganRecoversWithinSecondsAtEveryLoad(t *testing.T) {
	t.Parallel()
	for _, r := range fared(named(t, Phase, 0.5), policy(t, "Mulligan")) {
		w := r.Worst
		if !within(w.Recovery, 4) || w.After > 1.015 || r.Load > 0.55 && w.Wasted > 0.13 {
			t.Errorf("want successes back within 4 s, hardly any retry after the fault, and under 13 %% of the work wasted: %v", r)
		}
		// A provider that is ten times slower answers a call in time with a chance of
		// 63 % at best. Where the load is so low that it goes on being called, a job
		// may fail four times by chance.
		if r.Load > 0.15 && w.Dead > 0 || w.Success < 0.999 {
			t.Errorf("want no job dead because of the fault: %v", r)
		}
	}
}

func TestMulliganDrainsTheBacklogAboutAsFastAsTheProviderServes(t *testing.T) {
	t.Parallel()
	r := fared(named(t, "standard", 0.7), policy(t, "Mulligan"))[0]
	// In ten seconds 700 jobs arrive, for which 30 calls a second are left.
	if !within(r.Worst.Drained, 1.5*700/30) {
		t.Errorf("want little more than the 23 s that the provider needs: %v", r)
	}
}

func TestAnOutageIsWaitedFor(t *testing.T) {
	t.Parallel()
	var loads []Case
	for _, load := range []float64{0.2, 0.5, 0.7, 0.9} {
		loads = append(loads, named(t, "outage", load)...)
	}
	for _, r := range fared(loads, policy(t, "Mulligan")) {
		if w := r.Worst; !within(w.Recovery, 4) || w.Dead > 0 || w.After > 1.015 || w.InFault > 1.55 {
			t.Errorf("want successes back within 4 s, no job dead and few attempts: %v", r)
		}
	}
	if r := fared(named(t, "outage", 0.7), policy(t, "backoff + jitter ×4"))[0]; r.Dead < 500 {
		t.Errorf("want that others have given hundreds of jobs up: %v", r)
	}
}

func TestAUserWhoseJobsAllFailSlowsNobody(t *testing.T) {
	t.Parallel()
	rs := fared(named(t, "poison", 0.7), policy(t, "Mulligan"))
	poisoned, cured := rs[0], rs[1]
	if poisoned.Dead > 0 || poisoned.P99 > 1.2*cured.P99 || poisoned.P50 > 1.2*cured.P50 || poisoned.After > 1.01 {
		t.Errorf("want the other users' jobs as fast as when that user's succeed:\ngot  %v\nlike %v", poisoned, cured)
	}
	if r := fared(named(t, "poison", 0.7), policy(t, "backoff + jitter ×4"))[0]; r.Success > 0.1 {
		t.Errorf("want that without budgets that user's retries starve the others: %v", r)
	}
}

func TestAUserWhoIsPushedBackSlowsNobody(t *testing.T) {
	t.Parallel()
	for name, venom := range map[string]error{
		"times out":                  errTimeout,
		"is throttled":               mulligan.After(0, errTooMany),
		"is throttled with a hint":   mulligan.After(30*time.Second, errTooMany),
		"is answered 500 at once":    errPoison,
		"is told never to try again": mulligan.Permanent(errPoison),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cases := named(t, "poison", 0.7)
			cases[0].venom = venom
			rs := fared(cases, policy(t, "Mulligan"))
			poisoned, cured := rs[0], rs[1]
			if poisoned.Dead > 0 || poisoned.P99 > 1.2*cured.P99 || poisoned.P50 > 1.2*cured.P50 || poisoned.After > 1.01 {
				t.Errorf("want the other users' jobs as fast as when that user's succeed:\ngot  %v\nlike %v", poisoned, cured)
			}
		})
	}
}

func TestAHerdIsServedInTurn(t *testing.T) {
	t.Parallel()
	r := fared(named(t, "herd", 0.7), policy(t, "Mulligan"))[0]
	// A thousand jobs, for which 30 calls a second are left.
	if r.Worst.Dead > 0 || r.Worst.InFault > 1.05 || !within(r.Worst.Drained, 1.5*1000/30) {
		t.Errorf("want no job dead, hardly a retry, and all done about as fast as the provider serves: %v", r)
	}
}

func TestARateLimitIsKeptToWithoutLosingJobs(t *testing.T) {
	t.Parallel()
	r := fared(named(t, "ratelimit", 0.7), policy(t, "Mulligan"))[0]
	// In one run of ten a job of the ten thousand is over the limit four times by chance.
	if r.Worst.Dead > 1 || r.Dead > 0.15 || r.Worst.InFault > 1.1 || r.Worst.After > 1.05 {
		t.Errorf("want hardly a job dead and few calls over the limit: %v", r)
	}
}

func TestTheSameSeedGivesTheSameCourse(t *testing.T) {
	t.Parallel()
	c := named(t, "standard", 0.7)
	for _, p := range []Policy{policy(t, "jitter + 10 % budget"), policy(t, "Mulligan")} {
		one, other := Run(c, []Policy{p}, Seeds{7, 1}, nil), Run(c, []Policy{p}, Seeds{7, 1}, nil)
		if !reflect.DeepEqual(one, other) {
			t.Errorf("twice with seed 7:\n%v\n%v", one[0], other[0])
		}
		if next := Run(c, []Policy{p}, Seeds{8, 1}, nil); reflect.DeepEqual(one, next) {
			t.Errorf("with seeds 7 and 8 the same: %v", one[0])
		}
	}
}

func TestUnknownCasesAndLoadsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		load float64
		want string
	}{
		{"rain", 0.7, "standard, outage"},
		{"standard", 0, "between 0 and 1"},
		{"standard", 1, "between 0 and 1"},
		{"standard", -0.5, "between 0 and 1"},
	} {
		if _, err := Named(c.name, c.load); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("case %q at load %v: got error %v, want one with %q", c.name, c.load, err, c.want)
		}
	}
	for _, name := range Names() {
		if cases, err := Named(name, 0.5); err != nil || len(cases) == 0 {
			t.Errorf("case %q: %d cases, error %v", name, len(cases), err)
		}
	}
}
