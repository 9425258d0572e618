package mulligan_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// nearOne is the largest chance that a policy may be given.
const nearOne = 1 - 0x1p-53

func TestDelay(t *testing.T) {
	p := mulligan.DefaultPolicy()
	for _, tt := range []struct {
		name string
		n    int
		u    float64
		want time.Duration
	}{
		{"the first retry waits half the first delay at least", 1, 0, 50 * time.Millisecond},
		{"the first retry waits the first delay on average", 1, 0.5, 100 * time.Millisecond},
		{"the first retry waits one and a half first delays at most", 1, nearOne, 150 * time.Millisecond},
		{"the second retry waits twice as long", 2, 0.5, 200 * time.Millisecond},
		{"the third retry waits four times as long", 3, 0.5, 400 * time.Millisecond},
		{"a later retry is capped before the jitter", 10, 0, 5 * time.Second},
		{"a capped retry may still wait half as long again", 10, nearOne, 15 * time.Second},
		{"the hundredth retry does not overflow", 100, nearOne, 15 * time.Second},
		{"the thousandth retry does not overflow", 1000, 0.5, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.Delay(tt.n, tt.u); !near(got, tt.want) {
				t.Errorf("Delay(%d, %v) = %v, want %v", tt.n, tt.u, got, tt.want)
			}
		})
	}
}

func TestDelayOfAnEndlessCapDoesNotOverflow(t *testing.T) {
	p := mulligan.Policy{FirstDelay: math.MaxInt64, MaxDelay: math.MaxInt64}
	for _, u := range []float64{0, 0.5, nearOne} {
		for _, n := range []int{1, 2, 100} {
			if got := p.Delay(n, u); got < 0 {
				t.Errorf("Delay(%d, %v) = %v, want no negative delay", n, u, got)
			}
			if got := p.ThrottledDelay(n, math.MaxInt64, u, nearOne); got != math.MaxInt64 {
				t.Errorf("ThrottledDelay(%d, max, %v) = %v, want the longest duration", n, u, got)
			}
		}
	}
}

func TestThrottledDelay(t *testing.T) {
	p := mulligan.DefaultPolicy()
	for _, tt := range []struct {
		name string
		n    int
		hint time.Duration
		u, v float64
		want time.Duration
	}{
		{"without a hint a throttled job waits half a second at least", 1, 0, 0, 0, 500 * time.Millisecond},
		{"without a hint a throttled job waits two seconds at most", 1, 0, nearOne, nearOne, 2 * time.Second},
		{"the second throttled retry waits twice as long", 2, 0, 0.5, 0, 2 * time.Second},
		{"a hint longer than the backoff is the least wait", 1, 5 * time.Second, 0, 0, 5 * time.Second},
		{"jobs with the same short hint are spread over half the backoff", 1, 2 * time.Second, 0, nearOne, 2500 * time.Millisecond},
		{"jobs with the same long hint are spread over a tenth of it", 1, time.Minute, 0, nearOne, 66 * time.Second},
		{"a hint is kept though it is over the cap", 1, time.Hour, nearOne, 0, time.Hour},
		{"a short hint does not shorten the backoff", 3, time.Second, 0.5, 0, 4 * time.Second},
		{"the hundredth throttled retry does not overflow", 100, 0, nearOne, nearOne, 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.ThrottledDelay(tt.n, tt.hint, tt.u, tt.v); !near(got, tt.want) {
				t.Errorf("ThrottledDelay(%d, %v, %v, %v) = %v, want %v", tt.n, tt.hint, tt.u, tt.v, got, tt.want)
			}
		})
	}
}

func TestAThrottledJobNeverRunsBeforeItsHint(t *testing.T) {
	p := mulligan.DurablePolicy()
	for n := 1; n <= 100; n++ {
		for _, hint := range []time.Duration{1, time.Millisecond, time.Second, time.Hour, 30 * 24 * time.Hour} {
			for _, u := range []float64{0, 0.25, 0.5, nearOne} {
				if got := p.ThrottledDelay(n, hint, u, u); got < hint {
					t.Fatalf("ThrottledDelay(%d, %v, %v, %v) = %v, before the hint", n, hint, u, u, got)
				}
			}
		}
	}
}

// near allows for the jitter's chance being a hair under one.
func near(got, want time.Duration) bool { return got <= want && want-got < time.Microsecond }

func TestPolicyNormal(t *testing.T) {
	d := mulligan.DefaultPolicy()
	d.Timeout = d.Total
	for _, tt := range []struct {
		name   string
		policy mulligan.Policy
		want   mulligan.Policy
		err    string
	}{
		{"the zero policy is the default one", mulligan.Policy{}, d, ""},
		{"one attempt is no retry and allowed", mulligan.Policy{Attempts: 1}, mulligan.Policy{Attempts: 1, Total: d.Total, FirstDelay: d.FirstDelay, MaxDelay: d.MaxDelay, Timeout: d.Total}, ""},
		{"the timeout of an attempt is the total unless it is set", mulligan.Policy{Total: time.Minute}, mulligan.Policy{Attempts: 4, Total: time.Minute, FirstDelay: d.FirstDelay, MaxDelay: d.MaxDelay, Timeout: time.Minute}, ""},
		{"negative attempts are not endless attempts", mulligan.Policy{Attempts: -1}, mulligan.Policy{}, "attempts -1"},
		{"too many attempts are as good as endless", mulligan.Policy{Attempts: 101}, mulligan.Policy{}, "attempts 101"},
		{"a negative total is not an endless one", mulligan.Policy{Total: -1}, mulligan.Policy{}, "total"},
		{"an endless total is refused", mulligan.Policy{Total: math.MaxInt64}, mulligan.Policy{}, "total"},
		{"a negative first delay is refused", mulligan.Policy{FirstDelay: -time.Second}, mulligan.Policy{}, "first_delay"},
		{"a negative cap is not an endless one", mulligan.Policy{MaxDelay: -1}, mulligan.Policy{}, "max_delay"},
		{"an endless cap is refused", mulligan.Policy{MaxDelay: math.MaxInt64}, mulligan.Policy{}, "max_delay"},
		{"a negative timeout is refused", mulligan.Policy{Timeout: -1}, mulligan.Policy{}, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.policy.Normal()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Normal() of %+v: got error %v, want one that names %q", tt.policy, err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("Normal() of %+v = %+v, %v; want %+v", tt.policy, got, err, tt.want)
			}
		})
	}
}

func TestEveryNamedPolicyIsLimited(t *testing.T) {
	for _, name := range []string{"default", "durable"} {
		p, err := mulligan.NamedPolicy(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Normal(); err != nil {
			t.Errorf("policy %s: %v", name, err)
		}
	}
	if _, err := mulligan.NamedPolicy("forever"); err == nil || !strings.Contains(err.Error(), "default, durable") {
		t.Errorf("NamedPolicy(forever): got %v, want an error that lists the policies", err)
	}
}

func TestPolicySurvivesJSON(t *testing.T) {
	for _, p := range []mulligan.Policy{{}, mulligan.DefaultPolicy(), mulligan.DurablePolicy(), {Attempts: 1, Total: 1, FirstDelay: time.Hour, MaxDelay: 3, Timeout: 4}} {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var got mulligan.Policy
		if err := json.Unmarshal(b, &got); err != nil || got != p {
			t.Errorf("%s reads as %+v, %v; want %+v", b, got, err, p)
		}
	}
	for _, bad := range []string{`{"total":"soon"}`, `{"attempts":"many"}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), new(mulligan.Policy)); err == nil {
			t.Errorf("%s reads as a policy, want an error", bad)
		}
	}
}
