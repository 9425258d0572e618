package budget

import "testing"

func TestOneUsersProbesKeepNothingOpen(t *testing.T) {
	const eves = "10 failed@eve; 10 failed@bob; is open; +1; 1 failed@eve; held open 1..2; +2;"
	for _, tt := range []struct{ name, script string }{
		{"the first that fails tells", eves},
		{"the next tells nothing", eves + "1 failed@eve; is half_open; 5 ok@bob; is closed"},
		{"it gives its place back", eves + "start a; no b probe; end a failed@eve; start b; no c probe"},
		{"five tell nothing, the sixth does", eves + "5 failed@eve; is half_open; 1 failed@eve; is open"},
		{"it is open for no longer then than at first", eves + "6 failed@eve; held open 1; +1; 6 late@eve; held open 1"},
		{"they do not end with the open time", eves + "2 failed@eve; 1 failed@bob; +4; is half_open; 1 failed@bob; is half_open"},
		{"a good one among them has the count begin again", eves + "5 failed@eve; 1 ok@bob; 11 failed@eve; is half_open; 1 failed@eve; is open"},
		{"what works for others closes", eves + "5 failed@eve; 1 ok@bob; 5 failed@eve; 4 ok@bob; is closed"},
		{"the sixth after a good one is a bad one", eves + "1 ok@bob; 6 failed@eve; is half_open; 6 failed@eve; is open"},
		{"another user's tells, and then his do again", eves + "1 failed@eve; is half_open; 1 failed@bob; is open; +4; 1 failed@eve; is open"},
		{"those of nobody tell each time", "20 failed; +1; 1 failed; is open; +2; 1 failed; is open; +4; 1 failed; is open"},
		{"one of nobody after one of hers does", eves + "1 failed@eve; 1 failed; is open"},
		{"her refused credential is such a probe", eves + "5 401@eve; is half_open; 5 ok@bob; is closed"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
}

func TestOneUsersAnswersHoldNobody(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"her failures do not trip the breaker", "1000 failed@eve; is closed; limit 16; held"},
		{"a few of hers, of another's and of nobody's do", "9 ok; 9 failed; 1 failed@eve; 1 failed@bob; is open"},
		{"hers and a few of nobody's do, where nobody else calls", "3 failed; 16 failed@eve; is closed; 1 failed@eve; is open"},
		{"what was forgotten of a user is no voice", "5 ok@bob; 5 failed@eve; +5; 1 ok@bob; +5; 19 failed@ada; is closed"},
		{"her push-backs do not cut the limit", "1 late@eve; +1; 1 throttled@eve; +1; 1 late@eve; limit 16"},
		{"another's after hers does", "1 late@eve; limit 16; +9; 1 throttled@bob; limit 11"},
		{"hers after another's, too", "1 late@bob; 1 late@eve; limit 11; +1; 1 late@eve; limit 11"},
		{"not after ten seconds", "1 late@eve; +10; 1 late@bob; limit 16; +9; 1 late@eve; limit 11"},
		{"one of nobody is enough", "1 late; limit 11; +1; 1 late; limit 7"},
		{"hers after one of nobody cuts", "1 late; limit 11; +1; 1 late@eve; limit 7; +1; 1 late@eve; limit 7"},
		{"failures are no push-backs", "1 failed@bob; 1 late@eve; limit 16"},
		{"her hint closes no gate", "1 throttled:30@eve; held; 1 throttled:40@eve; held"},
		{"another's while hers lasts does, for the longer one", "1 throttled:30@eve; +20; 1 throttled:5@bob; held gate 10"},
		{"for his, if that is the longer one", "1 throttled:30@eve; +20; 1 throttled:15@bob; held gate 15"},
		{"for the longest of hers", "start a b c; end a throttled:30@eve; end b throttled:5@eve; +10; end c throttled:1@bob; held gate 20"},
		{"another's within ten seconds does, for his, if hers is over", "1 throttled:1@eve; +9; 1 throttled:2@bob; held gate 2; +2; 1 throttled:1@eve; held gate 1"},
		{"not after that", "1 throttled:5@eve; +10; 1 throttled:5@bob; held"},
		{"nor hers again after his", "start a; 1 throttled:1@eve; 1 throttled:2@bob; +2; end a throttled:3@eve; held gate 3; +3; 1 throttled:5@eve; held"},
		{"an hour of hers counts for a minute", "1 throttled:3600@eve; +59; 1 throttled:0.5@bob; held gate 1"},
		{"and then is over", "1 throttled:3600@eve; +60; 1 throttled:5@bob; held"},
		{"his without a hint is no second voice", "1 throttled:30@eve; 1 throttled@bob; held"},
		{"a hint of nobody's call is enough", "1 throttled:5; held gate 5"},
		{"hers after one of nobody's counts", "start a b; end a throttled:5; end b throttled:20@eve; held gate 20"},
		{"a late end is a voice as well", "start a; 20 failed; end a throttled:30@eve; held open 1; +1; 1 throttled:2@bob; held open 29"},
		{"her refused credential holds nothing", "1000 401@eve; is closed; held; limit 16"},
		{"another's after hers does", "1 401@eve; +9; 1 ok@ada; 1 401@bob; is credential; held credential 1"},
		{"not after ten seconds", "1 401@eve; +10; 1 401@bob; is closed; 1 401@eve; is credential"},
		{"one of nobody is enough", "1 401; is credential"},
		{"once held, one user's probe that is refused is a failed one", "1 401@eve; 1 401@bob; +20; is credential; 1 401@eve; is credential; held credential 1..2; +2; 5 401@eve; is credential; held; 1 ok@bob; is half_open"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
}

func TestWhatIsOnlyOneUsersIsSaid(t *testing.T) {
	now := instant(0)
	d, err := NewDownstream(Limits{}, now)
	if err != nil {
		t.Fatal(err)
	}
	call := func(o Outcome) {
		p, _ := d.Start(now, nil)
		p.End(now, o)
	}
	said := func(want Cause) {
		t.Helper()
		if s := d.State(now); s.OneUser != want || s.Breaker != PhaseClosed {
			t.Errorf("it stands at %+v, want it closed, and of one user %q", s, want)
		}
	}
	said("")
	call(Outcome{Result: RefusedCredential, User: "eve"})
	said(CredentialRefused)
	now = now.Add(windowSpan)
	said("")
	for range 30 {
		call(Outcome{Result: Failed, User: "eve"})
	}
	said(BreakerOpen)
	now = now.Add(windowSpan + bucketSpan)
	said("")
	for range 19 { // of nobody, and the next failure would trip it
		call(Outcome{Result: Failed})
	}
	call(Outcome{Result: Succeeded})
	said("")
	now = now.Add(windowSpan + bucketSpan)
	call(Outcome{Result: RefusedCredential}) // held for a second, and probed
	now = now.Add(firstOpen)
	for range probes {
		call(Outcome{Result: Succeeded})
	}
	said("")
}
