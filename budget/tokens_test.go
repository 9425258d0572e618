package budget

import (
	"math"
	"testing"
	"time"
)

func TestADownstreamHasALimit(t *testing.T) {
	whole := Limits{Ratio: 0.1, Cap: 10, Floor: 1, Slots: 16}
	for _, tt := range []struct {
		name   string
		limits Limits
		want   Limits
		bad    bool
	}{
		{"no limits are the defaults", Limits{}, whole, false},
		{"what is set stays", Limits{Ratio: 1, Cap: 1, Floor: 0.001, Slots: 1}, Limits{Ratio: 1, Cap: 1, Floor: 0.001, Slots: 1}, false},
		{"the highest are allowed", Limits{Ratio: 1, Cap: 1e6, Floor: 1e6, Slots: 10_000}, Limits{Ratio: 1, Cap: 1e6, Floor: 1e6, Slots: 10_000}, false},
		{"a retry for each success is the most", Limits{Ratio: 1.01}, Limits{}, true},
		{"a negative ratio is refused", Limits{Ratio: -0.1}, Limits{}, true},
		{"a ratio that is no number is refused", Limits{Ratio: math.NaN()}, Limits{}, true},
		{"a cap under one retry is refused", Limits{Cap: 0.5}, Limits{}, true},
		{"a cap without an end is refused", Limits{Cap: math.Inf(1)}, Limits{}, true},
		{"a cap that is no number is refused", Limits{Cap: math.NaN()}, Limits{}, true},
		{"a negative floor is refused", Limits{Floor: -1}, Limits{}, true},
		{"a floor without an end is refused", Limits{Floor: math.Inf(1)}, Limits{}, true},
		{"a floor that is no number is refused", Limits{Floor: math.NaN()}, Limits{}, true},
		{"a floor that is next to none is refused", Limits{Floor: 1e-9}, Limits{}, true},
		{"negative slots are refused", Limits{Slots: -1}, Limits{}, true},
		{"too many slots are refused", Limits{Slots: 10_001}, Limits{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.limits.Normal()
			if (err != nil) != tt.bad || !tt.bad && got != tt.want {
				t.Errorf("%+v is %+v, %v; want %+v, refused = %v", tt.limits, got, err, tt.want, tt.bad)
			}
			if d, err := NewDownstream(tt.limits, instant(0)); (err != nil) != tt.bad || (d == nil) != tt.bad {
				t.Errorf("a downstream with %+v: %v; want it refused = %v", tt.limits, err, tt.bad)
			}
		})
	}
}

func TestRetriesAreEarnedAndPaid(t *testing.T) {
	const spent = "retry a b c d e f g h i j; tokens 0;" // and the ten are in flight
	for _, tt := range []struct{ name, script string }{
		{"it begins with all that can be saved", "tokens 10"},
		{"a retry costs one", "retry a; tokens 9"},
		{"and has it back when it succeeds", "retry a; end a ok; tokens 10"},
		{"once", "retry a b; end a ok; end a ok; tokens 9"},
		{"its success earns nothing more", spent + "end a ok; tokens 1"},
		{"not when it fails", "retry a b c d e; end a failed; end b late; end c throttled; end d 4xx; end e 401; tokens 5"},
		{"a success at a first attempt earns a tenth", spent + "start s; end s ok; tokens 0.1"},
		{"a failure earns nothing", spent + "start s; end s failed; start s; end s 4xx; start s; end s dropped; tokens 0"},
		{"no more is saved than the cap", "20 ok; tokens 10; +1000; tokens 10"},
		{"the floor is one a second", spent + "+0.5; tokens 0.5; +2; tokens 2.5"},
		{"one that was paid elsewhere costs nothing", "paid a; tokens 10"},
		{"and what it cost comes back here", spent + "paid x; tokens 0; end x ok; tokens 1"},
		{"if it succeeds", spent + "paid x; end x failed; tokens 0"},
	} {
		t.Run(tt.name, func(t *testing.T) { newPlay(t, Limits{}).run(tt.script) })
	}
}

func TestTheFloorIsShared(t *testing.T) {
	p := newPlay(t, Limits{})
	p.run("retry a b c d e f g h i j; tokens 0")
	p.d.Share(p.now, 4)
	p.run("+2")
	p.d.Share(p.now, 2)
	p.run("tokens 0.5; +1; tokens 1")
	p.d.Share(p.now, 0)
	p.run("+1; tokens 2")
	p.d.Share(p.now, math.MaxInt)
	p.run("retry k l; tokens 0; +1; tokens 1e-06")
}

func TestTheCapIsShared(t *testing.T) {
	p := newPlay(t, Limits{})
	p.run("tokens 10")
	p.d.Share(p.now, 4)
	p.run("tokens 2.5; +100; tokens 2.5; 100 ok; tokens 2.5; retry a b; end a ok; tokens 1.5; end b ok; tokens 2.5")
	p.d.Share(p.now, 1000)
	p.run("tokens 2; retry a; end a ok; tokens 2")
	p.d.Share(p.now, 1)
	p.run("tokens 2; +100; tokens 10")
}

func TestADeniedRetryIsToldWhenTheFloorBringsItsToken(t *testing.T) {
	for _, tt := range []struct {
		name    string
		saved   string // script
		after   Result
		workers int
		want    time.Duration
	}{
		{"a whole one", "", Failed, 1, time.Second},
		{"what is missing of one", "+0.25", Failed, 1, 750 * time.Millisecond},
		{"next to nothing", "+0.9995", Failed, 1, 500 * time.Microsecond},
		{"a throttled one is cheaper", "", Throttled, 1, 350 * time.Millisecond},
		{"four workers wait four times as long", "", Failed, 4, 4 * time.Second},
		{"seven, seven times", "", Failed, 7, 7 * time.Second},
		{"a million too", "", Failed, math.MaxInt, 1e6 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlay(t, Limits{})
			p.run("retry a b c d e f g h i j;" + tt.saved)
			p.d.Share(p.now, tt.workers)
			token, wait := p.d.Take(p.now, tt.after)
			if got := wait.Until.Sub(p.now); token != nil || wait.Why != NoToken || got < tt.want || got > tt.want+2*time.Microsecond {
				t.Fatalf("got token %v and %+v, want none, and a wait of %v", token, wait, tt.want)
			}
			if token, wait = p.d.Take(wait.Until, tt.after); token == nil {
				t.Errorf("after the wait: %+v, want a token", wait)
			}
		})
	}
}

func TestATokenKnowsWhatBecameOfIt(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(d *Downstream, token *Token, now time.Time)
		want float64 // saved after it
	}{
		{"taken", func(*Downstream, *Token, time.Time) {}, 9},
		{"given back", func(_ *Downstream, token *Token, now time.Time) { token.Back(now) }, 10},
		{"given back when the next is taken too", func(d *Downstream, token *Token, now time.Time) {
			_, _ = d.Take(now, Failed)
			token.Back(now)
			token.Back(now)
		}, 9},
		{"not given back while its retry runs", func(d *Downstream, token *Token, now time.Time) {
			_, _ = d.Start(now, token)
			token.Back(now)
		}, 9},
		{"not given back after its retry", func(d *Downstream, token *Token, now time.Time) {
			permit, _ := d.Start(now, token)
			permit.End(now, Outcome{Result: Failed})
			token.Back(now)
		}, 9},
		{"given back after it was dropped", func(d *Downstream, token *Token, now time.Time) {
			permit, _ := d.Start(now, token)
			permit.End(now, Outcome{})
			token.Back(now)
		}, 10},
		{"started again after it was dropped", func(d *Downstream, token *Token, now time.Time) {
			permit, _ := d.Start(now, token)
			permit.End(now, Outcome{})
			permit, _ = d.Start(now, token)
			permit.End(now, Outcome{Result: Succeeded})
		}, 10},
		{"cheaper once it is known to be throttled", func(_ *Downstream, token *Token, now time.Time) {
			token.After(now, Throttled)
			token.After(now, Throttled)
			token.After(now, Failed)
		}, 9.65},
		{"and then less comes back", func(d *Downstream, token *Token, now time.Time) {
			_, _ = d.Take(now, Failed)
			token.After(now, Throttled)
			token.Back(now)
		}, 9},
		{"not cheaper any more when it runs", func(d *Downstream, token *Token, now time.Time) {
			_, _ = d.Start(now, token)
			token.After(now, Throttled)
		}, 9},
		{"paid elsewhere it cannot be given back here", func(d *Downstream, _ *Token, now time.Time) {
			token := d.Paid(Failed)
			token.After(now, Throttled)
			token.Back(now)
		}, 9},
		{"no token is none", func(_ *Downstream, _ *Token, now time.Time) {
			var none *Token
			none.After(now, Throttled)
			none.Back(now)
		}, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlay(t, Limits{})
			token, _ := p.d.Take(p.now, Failed)
			tt.do(p.d, token, p.now)
			if got := p.d.State(p.now).Tokens; math.Abs(got-tt.want) > 1e-9 {
				t.Errorf("%v retries are saved, want %v", got, tt.want)
			}
		})
	}
}

func TestATokenStartsOneRetry(t *testing.T) {
	p := newPlay(t, Limits{})
	other := newPlay(t, Limits{})
	token, _ := p.d.Take(p.now, Failed)
	if _, wait := other.d.Start(p.now, token); wait.Why != TokenUsed {
		t.Errorf("with the token of another downstream: %+v, want it refused", wait)
	}
	permit, wait := p.d.Start(p.now, token)
	if wait.Why != "" {
		t.Fatalf("a retry with its token waits: %+v", wait)
	}
	if _, wait := p.d.Start(p.now, token); wait.Why != TokenUsed {
		t.Errorf("with a token whose retry is in flight: %+v, want it refused", wait)
	}
	permit.End(p.now, Outcome{Result: Succeeded})
	if _, wait := p.d.Start(p.now, token); wait.Why != TokenUsed {
		t.Errorf("with a token whose retry has ended: %+v, want it refused", wait)
	}
	p.run("flight 0")
}

func TestADenialLeavesTheTokenHeld(t *testing.T) {
	p := newPlay(t, Limits{})
	token, _ := p.d.Take(p.now, Failed)
	p.run(tripped)
	if _, wait := p.d.Start(p.now, token); wait.Why != BreakerOpen {
		t.Fatalf("while open: %+v", wait)
	}
	token.Back(p.now)
	p.run("tokens 10")
}
