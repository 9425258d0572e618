package budget

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// play is a downstream to which a script happens: steps separated by ";".
//
//	+1.5            time passes, in seconds
//	start a b       both start, first attempts
//	retry a         takes a token, and starts
//	paid a          starts, paid for elsewhere
//	take a, pay a   the same, but it does not start; "start a" does later
//	no a probe      a may not start, for that cause
//	none open 1     no token for a retry, why and for how long
//	end a failed    a ends so; throttled:30 with a hint of as many seconds;
//	                failed@eve as eve's call, else it is nobody's
//	20 failed       so many start and end so, one after the other
//	is open         the phase
//	held gate 30    why, and for how long; held: not at all; held open 1..2: about
//	limit 4, flight 2, tokens 9.5
type play struct {
	t       *testing.T
	d       *Downstream
	now     time.Time
	permits map[string]Permit
	tokens  map[string]*Token
}

func newPlay(t *testing.T, l Limits) *play {
	t.Helper()
	d, err := NewDownstream(l, instant(0))
	if err != nil {
		t.Fatal(err)
	}
	return &play{t: t, d: d, now: instant(0), permits: map[string]Permit{}, tokens: map[string]*Token{}}
}

// results are all, and one that is none.
var results = []Result{Dropped, Succeeded, Failed, TimedOut, Throttled, CallersFault, RefusedCredential, 99}

func seconds(s string) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err)
	}
	return time.Duration(f * float64(time.Second))
}

func outcome(s string) Outcome {
	s, user, _ := strings.Cut(s, "@")
	name, hint, _ := strings.Cut(s, ":")
	o := Outcome{User: user, Result: map[string]Result{
		"dropped": Dropped, "ok": Succeeded, "failed": Failed, "late": TimedOut,
		"throttled": Throttled, "4xx": CallersFault, "401": RefusedCredential,
	}[name]}
	if hint != "" {
		o.Hint = seconds(hint)
	}
	return o
}

func (p *play) run(script string) {
	p.t.Helper()
	for step := range strings.SplitSeq(script, ";") {
		if got := p.step(strings.Fields(step)); got != "" {
			p.t.Fatalf("%q in %q: %s", strings.TrimSpace(step), script, got)
		}
	}
}

// step returns what is not as the step says.
func (p *play) step(w []string) string {
	switch {
	case len(w) == 0:
		return ""
	case strings.HasPrefix(w[0], "+"):
		p.now = p.now.Add(seconds(w[0][1:]))
		return ""
	}
	if n, err := strconv.Atoi(w[0]); err == nil {
		return p.series(n, outcome(w[1]))
	}
	switch w[0] {
	case "start", "retry", "paid", "take", "pay":
		return p.start(w[0], w[1:])
	case "no":
		_, wait := p.d.Start(p.now, p.tokens[w[1]])
		return differ(string(wait.Why), w[2])
	case "none":
		token, wait := p.d.Take(p.now, Failed)
		if token != nil {
			return "there is a token"
		}
		return differ(fmt.Sprint(wait.Why, " ", wait.Until.Sub(p.now).Seconds()), strings.Join(w[1:], " "))
	case "end":
		p.permits[w[1]].End(p.now, outcome(w[2]))
		return ""
	}
	return p.look(w)
}

func (p *play) series(n int, o Outcome) string {
	for i := range n {
		permit, wait := p.d.Start(p.now, nil)
		if wait.Why != "" {
			return fmt.Sprintf("number %d waits for %q", i+1, wait.Why)
		}
		permit.End(p.now, o)
	}
	return ""
}

func (p *play) start(how string, names []string) string {
	for _, name := range names {
		switch how {
		case "retry", "take":
			p.tokens[name], _ = p.d.Take(p.now, Failed)
			if p.tokens[name] == nil {
				return "no token"
			}
		case "paid", "pay":
			p.tokens[name] = p.d.Paid(Failed)
		}
		if how == "take" || how == "pay" {
			continue
		}
		permit, wait := p.d.Start(p.now, p.tokens[name])
		if wait.Why != "" {
			return fmt.Sprintf("%s waits for %q", name, wait.Why)
		}
		p.permits[name] = permit
	}
	return ""
}

func (p *play) look(w []string) string {
	s := p.d.State(p.now)
	switch w[0] {
	case "is":
		return differ(string(s.Breaker), w[1])
	case "limit":
		return differ(strconv.Itoa(s.Limit), w[1])
	case "flight":
		return differ(strconv.Itoa(s.InFlight), w[1])
	case "tokens":
		return differ(strconv.FormatFloat(s.Tokens, 'g', 6, 64), w[1])
	case "held":
		h := p.d.Held(p.now)
		got := string(h.Why)
		if h.Why != "" {
			got += " " + strconv.FormatFloat(h.Until.Sub(p.now).Seconds(), 'g', 6, 64)
		}
		if len(w) == 3 && strings.Contains(w[2], "..") {
			return p.about(h, w[1], w[2])
		}
		return differ(got, strings.Join(w[1:], " "))
	}
	panic("no step " + w[0])
}

// about compares a wait with a cause and a range of seconds.
func (p *play) about(h Wait, why, wait string) string {
	least, most, _ := strings.Cut(wait, "..")
	if d := h.Until.Sub(p.now); string(h.Why) != why || d < seconds(least) || d > seconds(most) {
		return fmt.Sprintf("got %q for %v, want %q for %s s", h.Why, d, why, wait)
	}
	return ""
}

func differ(got, want string) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("got %q, want %q", got, want)
}

// The scripts of the tables: a breaker that tripped and is open for a second,
// and one that has closed again after that.
const (
	tripped   = "20 failed; is open;"
	reclosed  = tripped + "+1; 5 ok; is closed;"
	firstGood = "+1; start a; end a ok; is half_open;"
)

func TestTheBreakerHoldsADownstreamThatFails(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"nineteen failures do not trip it", "19 failed; is closed; held"},
		{"the twentieth does", "19 failed; 1 failed; is open; held open 1"},
		{"half of twenty failing is enough", "10 ok; 9 failed; is closed; 1 failed; is open"},
		{"less than half is not", "11 ok; 10 failed; is closed; 1 failed; is open"},
		{"a success does not trip it, however bad the window", "19 failed; 1 ok; is closed; 1 failed; is open"},
		{"a timeout fails", "20 late; is open"},
		{"a throttled call fails", "20 throttled; is open"},
		{"the caller's fault is no failure", "100 4xx; is closed"},
		{"the caller's fault is no success", "100 4xx; 20 failed; is open"},
		{"a dropped call is neither", "100 dropped; 20 failed; is open"},
		{"failures are forgotten after ten seconds", "19 failed; +10; 1 failed; is closed"},
		{"and not before", "+0.5; 19 failed; +9; 1 failed; is open"},
		{"only old buckets are forgotten", "10 failed; +5; 9 failed; +5; 10 failed; is closed; 1 failed; is open"},
		{"old failures are forgotten, later successes are not", "10 failed; +5; 15 ok; +5; 5 ok; 1 failed; is closed"},
		{"a bucket used again is empty", "10 failed; +5; 1 ok; +5; 5 failed; +5; 1 ok; +5; 18 failed; is closed; 1 failed; is open"},
		{"much later the window is empty", "19 failed; +100000; 19 failed; is closed"},
		{"twenty failures in a row do, however much went well before", "1000 ok; 19 failed; is closed; 1 failed; is open"},
		{"with a success among them they are no row", "1000 ok; 19 failed; 1 ok; 19 late; is closed; 1 throttled; is open"},
		{"the caller's fault is no success that ends a row", "1000 ok; 10 failed; 100 4xx; 10 failed; is open"},
		{"open is no start at all, a retry neither", tripped + "no a open; limit 0; +0.999; no a open"},
		{"after a second it half-opens", tripped + "+1; held; is half_open; limit 1"},
		{"a probe that fails makes the time up to twice as long", tripped + "+1; 1 failed; held open 1..2; +2; 1 late; held open 1..4; +4; 1 throttled; held open 1..8"},
		{"up to thirty seconds", tripped + strings.Repeat("+30; 1 failed;", 20) + "held open 30"},
		{"a good probe does not reset the time", tripped + firstGood + "2 failed; held open 1..2"},
		{"one bad probe after a good one is not enough", tripped + firstGood + "1 failed; is half_open"},
		{"as many bad probes as good ones are not enough", tripped + firstGood + "1 failed; 1 ok; 1 failed; 1 ok; 1 failed; 2 ok; is closed"},
		{"one more is", tripped + firstGood + "1 failed; 1 ok; 2 failed; held open 1..2; +2; 1 failed; held open 1..4"},
		{"closing does", tripped + "+1; 1 failed; +2; 5 ok; is closed; 20 failed; held open 1"},
		{"closing empties the window", reclosed + "19 failed; is closed; 1 failed; is open"},
		{"the caller's fault is a good probe", tripped + "+1; 5 4xx; is closed"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
}

func TestWorkersThatTrippedTogetherProbeApart(t *testing.T) {
	waits := map[time.Duration]bool{}
	for n := range 10 {
		p := newPlay(t, Limits{})
		p.now = p.now.Add(time.Duration(n)) // no two calls end in one nanosecond
		p.run(tripped + "+1; 1 failed; held open 1..2")
		waits[p.d.Held(p.now).Until.Sub(p.now).Round(10*time.Millisecond)] = true
	}
	if len(waits) < 8 {
		t.Errorf("of ten workers the second probes come after %v", waits)
	}
}

func TestProbesAreFewAndNeverLeak(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"the first probe is alone", tripped + "+1; start a; no b probe; flight 1"},
		{"after it was good four more", tripped + firstGood + "start b c d e; no f probe"},
		{"five good ones close it", tripped + firstGood + "start b c d e; end b ok; no f probe; end c ok; end d ok; is half_open; end e ok; is closed"},
		{"a dropped probe gives its place back", tripped + "+1; start a; end a dropped; is half_open; start b; end b ok; is half_open; start c d e f"},
		{"one of four dropped gives its place back", tripped + firstGood + "start b c d e; end c dropped; start f; no g probe"},
		{"all dropped for a long time", tripped + "+1; 1000 dropped; is half_open; +100; 1000 dropped; 5 ok; is closed"},
		{"ended twice it gives one place back", tripped + "+1; start a; end a dropped; start b; end a dropped; end a ok; no c probe"},
		{"ended twice it is one good probe", tripped + "+1; start a; end a ok; end a ok; end a ok; end a ok; end a ok; is half_open; start b c d e; no f probe"},
		{"its place is another's by then", tripped + "+1; start a; end a ok; start b; end a failed; is half_open; flight 1"},
		{"a result that is none gives the place back", tripped + "+1; start a; end a nonsense; start b"},
		{"those that fail make the others late", tripped + firstGood + "start b c d; end b failed; is half_open; end d failed; is open; end c failed; held open 1..2; +2; start d; no e probe"},
		{"one that outlives the next open period does not count", tripped + firstGood + "start b c d; end b failed; end d failed; +2; start d; end c ok; no e probe; end d ok; start e f g h; no i probe"},
		{"nor does it hurt", tripped + firstGood + "start b c d; end b failed; end d failed; +2; start d; end c failed; is half_open; end c failed; end d ok; is half_open"},
		{"after closing none is left", reclosed + "limit 1; start a; no b limit; end a ok; limit 2"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
}

func TestRetriesProbeOnlyWhenThereIsNothingElse(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"none is granted while it is open", tripped + "none open 1; tokens 10; +0.5; none open 0.5"},
		{"nor in the second after that", tripped + "+1; none probe 1; +0.75; none probe 0.25; is half_open; tokens 10"},
		{"then they probe", tripped + "+2; retry a; no b probe; end a ok; is half_open; retry b c d e; end b ok; end c ok; end d ok; end e ok; is closed"},
		{"once it has closed they are granted", reclosed + "retry a"},
		{"a token taken before may be used and given back", "retry a b; 20 failed; end b dropped; end a ok; +1; is half_open; tokens 10"},
		{"one in hand waits so long, too", "take a; 20 failed; no a open; +1; no a probe; +0.999; no a probe; start b; no a probe; end b dropped; +0.001; start a; end a ok; tokens 10"},
		{"it is still good once the breaker has closed", "take a;" + tripped + "+1; no a probe; 5 ok; is closed; start a; end a ok; tokens 10"},
		{"one that was paid for when it was planned may probe after that", "pay a;" + tripped + "+1; no a probe; +1; start a; end a ok"},
		{"a refused credential is no other", "1 401; none credential 1"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
}

func TestWithOneSlotThereIsOneProbeAtATime(t *testing.T) {
	newPlay(t, Limits{Slots: 1}).run(tripped + firstGood + "start a; no b probe; end a ok; 3 ok; is closed; limit 1")
}

func TestCallsThatBeganBeforeTheTripEndLate(t *testing.T) {
	const hanging = "start a b c;" + tripped
	for _, tt := range []struct{ name, script string }{
		{"a success does not half-open it", hanging + "end a ok; is open; held open 1"},
		{"a failure does not keep it open for longer", hanging + "end a failed; held open 1"},
		{"a success is no probe", hanging + "+1; end a ok; end b ok; start d; end d ok; end c ok; start e f g h; no i probe"},
		{"a failure does not trip it again", hanging + "+1; is half_open; end a failed; end b late; is half_open; 5 ok; end c failed; is closed"},
		{"they do not keep the probe out", hanging + "+1; flight 3; start d; flight 4; no e probe"},
		{"they end no probe", hanging + "+1; start d; end a ok; end b dropped; no e probe"},
		{"after closing they are not counted", hanging + "+1; 5 ok; 19 failed; end a failed; is closed; 1 failed; is open"},
		{"a credential refused late does not hold", hanging + "+1; 5 ok; is closed; end a 401; is closed"},
		{"a late hint still closes the gate", hanging + "end a throttled:5; held open 5; +1; held gate 4"},
		{"a late success still earns", "retry r; start s; tokens 9; 20 failed; end s ok; is open; tokens 9.1"},
		{"a late success of a retry gives back what it cost", "retry r; tokens 9; 20 failed; end r ok; is open; tokens 10"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
}

func TestCallsThatHangNeverKeepTheFirstProbeOut(t *testing.T) {
	newPlay(t, Limits{Slots: 2}).run("start a b; end b 401; +1; start c; no d probe; end c ok; start d; no e limit; end a late; start e; flight 2")
	newPlay(t, Limits{Slots: 3}).run("start a b c; end c 401; +1; start c; no d probe; end c ok; start d; no e limit; end d failed; +2; start e")
}

func TestARefusedCredentialHoldsAtOnce(t *testing.T) {
	const refused = "1 401; is credential;"
	for _, tt := range []struct{ name, script string }{
		{"the first refusal is enough", "1000 ok; 1 401; is credential; held credential 1; no a credential"},
		{"it is its own state until a probe tells", refused + "+1; is credential; held; start a; is credential; end a dropped; is credential; 1 ok; is half_open"},
		{"refused again it waits up to twice as long", refused + "+1; 1 401; is credential; held credential 1..2; +2; 1 401; held credential 1..4"},
		{"a probe that fails for another reason is not refused", refused + "+1; 1 failed; is open; held open 1..2; +2; 5 ok; is closed"},
		{"the caller's fault is not refused", refused + "+1; 1 4xx; is half_open; 4 4xx; is closed"},
		{"a refused probe of a failing downstream", tripped + "+1; 1 401; is credential; held credential 1..2"},
		{"a refusal after a good probe", tripped + firstGood + "1 401; is credential; held credential 1..2; +2; no_probe"},
		{"the refusals of calls in flight are one", "start a b c; end a 401; held credential 1; end b 401; end c 401; held credential 1"},
		{"a gate that is closed for longer counts", "start a b; end a throttled:10; end b 401; held credential 10; +1; is credential; held gate 9"},
		{"closing resets the time", refused + "+1; 1 401; +2; 5 ok; is closed; 1 401; held credential 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newPlay(t, Limits{}).run(strings.ReplaceAll(tt.script, "no_probe", "is credential"))
		})
	}
}

func TestTheLimitReleasesABacklogGently(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"it begins at the slots", "limit 16; start a b c d e f g h i j k l m n o p; no q limit; limit 16; end a ok; start q; no r limit"},
		{"after closing it is one", reclosed + "limit 1"},
		{"it doubles each round trip", reclosed + "start a; end a ok; limit 2; start a b; end a ok; end b ok; limit 4; 4 ok; limit 8; 8 ok; limit 16; 8 ok; limit 16"},
		{"the caller's fault is an answer, and a snooze is one", reclosed + "3 4xx; limit 4"},
		{"failures leave it", reclosed + "3 ok; 3 failed; limit 4"},
		{"a throttled call cuts it", "1 throttled; limit 11"},
		{"a timeout cuts it", "1 late; limit 11"},
		{"a failure does not", "1 failed; limit 16"},
		{"calls that were in flight at the cut do not cut again", "start a b c; end a late; +5; end b late; end c throttled; limit 11"},
		{"one that began later does", "start a; end a late; start b; +1; end b late; limit 7"},
		{"once a second", "1 late; +0.999; 1 late; limit 11; +0.001; 1 late; limit 7"},
		{"never below one", "1 late; +10; 1 late; +10; 1 late; +10; 1 late; +10; 1 late; +10; 1 late; +10; 1 late; +10; 1 late; +10; 1 late; limit 1; start a; no b limit"},
		{"below the slots it grows by one a round trip", "1 late; limit 11; 11 ok; limit 12; 12 ok; limit 13"},
		{"a cut ends the slow start", reclosed + "15 ok; limit 16; 1 late; limit 11; 5 ok; limit 11"},
		{"a cut within the slow start too", reclosed + "9 ok; limit 10; 1 late; limit 7; 3 ok; limit 7; 6 ok; limit 8"},
		{"the next half-opening starts it again", reclosed + "15 ok; 15 failed; +1; 5 ok; limit 1; 2 ok; limit 3"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
}

func TestTheGateIsClosedForAsLongAsTheDownstreamAsks(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"nothing starts before the hint", "1 throttled:30; held gate 30; no a gate; +29.999; no a gate; +0.001; held; start a"},
		{"without a hint it stays open", "1 throttled; held; 1 throttled:0; held"},
		{"a negative hint is none", "1 throttled:-5; held"},
		{"the later of two hints counts", "start a b c; end a throttled:30; end b throttled:10; held gate 30; +1; end c throttled:40; held gate 40"},
		{"an hour is a minute", "1 throttled:3600; held gate 60"},
		{"only a throttled call closes it", "1 failed:30; held; 1 ok:30; held"},
		{"what is in flight may end", "start a b; end a throttled:30; end b ok; flight 0"},
		{"a probe waits for it", tripped + "+1; 1 throttled:10; held open 10; +2; held gate 8; is half_open; no a gate; +8; start a"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
	p := newPlay(t, Limits{})
	p.run("1 throttled:30")
	if got := p.d.State(p.now).GateUntil; !got.Equal(instant(30)) {
		t.Errorf("the state says the gate is closed until %v, want %v", got, instant(30))
	}
	p.run("+30")
	if got := p.d.State(p.now).GateUntil; !got.IsZero() {
		t.Errorf("the state says the gate is closed until %v, want no time", got)
	}
}

func TestATimeBeforeTheLatestIsTheLatest(t *testing.T) {
	p := newPlay(t, Limits{})
	p.run("1 throttled:30; +30; retry a; tokens 9; +-25; held; tokens 9; start b; end b throttled:1; held gate 26; +25; held gate 1")
}

func TestOfTwoStartsAtOnceOneIsTheProbe(t *testing.T) {
	for range 200 {
		p := newPlay(t, Limits{})
		p.run(tripped + "+1")
		var (
			wg  sync.WaitGroup
			mu  sync.Mutex
			got []Cause
		)
		for range 4 {
			wg.Go(func() {
				permit, wait := p.d.Start(p.now, nil)
				mu.Lock()
				defer mu.Unlock()
				got = append(got, wait.Why)
				p.permits[string(wait.Why)] = permit
			})
		}
		wg.Wait()
		slices.Sort(got)
		if want := []Cause{"", ProbeTaken, ProbeTaken, ProbeTaken}; !slices.Equal(got, want) {
			t.Fatalf("four starts at once: got %q, want %q", got, want)
		}
		for range 4 { // and of several ends one counts
			wg.Go(func() { p.permits[""].End(p.now, Outcome{Result: Succeeded}) })
		}
		wg.Wait()
		p.run("is half_open; flight 0; start b c d e; no f probe")
	}
}

func TestAProbeWhoseCallerPanicsIsGivenBack(t *testing.T) {
	p := newPlay(t, Limits{})
	p.run(tripped + "+1")
	func() {
		defer func() { _ = recover() }()
		permit, _ := p.d.Start(p.now, nil)
		var o Outcome
		defer func() { permit.End(p.now, o) }()
		panic("in the handler")
	}()
	p.run("is half_open; flight 0; 5 ok; is closed")
}

func TestThePermitOfNothingEndsNothing(t *testing.T) {
	p := newPlay(t, Limits{})
	p.run(tripped)
	permit, _ := p.d.Start(p.now, nil)
	permit.End(p.now, Outcome{Result: Succeeded})
	p.run("is open; flight 0")
}

func TestManyAtOnceLeaveNothingBehind(t *testing.T) {
	p := newPlay(t, Limits{Slots: 4})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { churn(p.d, i) })
	}
	wg.Wait()
	p.run("flight 0; +1000; 30 ok; is closed; limit 4")
}

// churn takes, starts and ends as a slot of a worker does, with a clock of its own.
func churn(d *Downstream, seed int) {
	now := instant(0)
	for n := range 3000 {
		now = now.Add(time.Duration((n*7+seed*13)%100) * time.Millisecond)
		var token *Token
		if n%3 == seed%3 {
			token, _ = d.Take(now, Failed)
		}
		token.After(now, results[n%len(results)])
		permit, _ := d.Start(now, token)
		d.Held(now)
		permit.End(now, Outcome{Result: results[(n/5+seed)%len(results)], Hint: time.Millisecond})
		permit.End(now, Outcome{Result: Succeeded})
		token.Back(now)
		d.Share(now, 1+n%4)
	}
}

func TestAResultHasAName(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range results {
		seen[r.String()] = true
	}
	if len(seen) != len(results) || seen[""] {
		t.Errorf("the results are called %v", seen)
	}
}
