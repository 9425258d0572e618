package mulligan

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// A Policy bounds how one job is retried. A zero field means the default
// policy's value; there is no policy without limits.
type Policy struct {
	// Attempts is how often the handler is called at most, the first included.
	Attempts int
	// Total bounds what the attempts took plus the delays that the policy
	// chose between them. Waiting in a stream or for a budget is not counted.
	Total time.Duration
	// FirstDelay is the delay before the first retry, before jitter; each
	// further one doubles it.
	FirstDelay time.Duration
	// MaxDelay caps the delay before jitter.
	MaxDelay time.Duration
	// Timeout bounds one attempt; zero means what is left of Total. Set it to a
	// part of Total if a call that hangs is to be tried again: otherwise it uses up
	// the whole of it.
	Timeout time.Duration
}

// DefaultPolicy is for a call that someone waits for: four attempts within
// ten seconds.
func DefaultPolicy() Policy {
	return Policy{Attempts: 4, Total: 10 * time.Second, FirstDelay: 100 * time.Millisecond, MaxDelay: 10 * time.Second}
}

// DurablePolicy is for work that nobody waits for: eight attempts within two
// minutes.
func DurablePolicy() Policy {
	return Policy{Attempts: 8, Total: 2 * time.Minute, FirstDelay: 100 * time.Millisecond, MaxDelay: 30 * time.Second}
}

// NamedPolicy returns the policy called default or durable.
func NamedPolicy(name string) (Policy, error) {
	switch name {
	case "default":
		return DefaultPolicy(), nil
	case "durable":
		return DurablePolicy(), nil
	}
	return Policy{}, fmt.Errorf("policy %q is not one of default, durable", name)
}

// The bounds that no policy may exceed: beyond them a retry is not bounded in
// any way that an operator would notice.
const (
	maxAttempts = 100
	maxTotal    = 7 * 24 * time.Hour
)

// Normal returns p with zero fields replaced by the default policy's, or an
// error that names a field which would make the retries limitless.
func (p Policy) Normal() (Policy, error) {
	d := DefaultPolicy()
	if p.Attempts == 0 {
		p.Attempts = d.Attempts
	}
	orDefault(&p.Total, d.Total)
	orDefault(&p.FirstDelay, d.FirstDelay)
	orDefault(&p.MaxDelay, d.MaxDelay)
	orDefault(&p.Timeout, p.Total)
	switch {
	case p.Attempts < 1 || p.Attempts > maxAttempts:
		return p, fmt.Errorf("policy attempts %d is not between 1 and %d", p.Attempts, maxAttempts)
	case p.Total < 0 || p.Total > maxTotal:
		return p, fmt.Errorf("policy total %v is not between 1ns and %v", p.Total, maxTotal)
	case p.FirstDelay < 0:
		return p, fmt.Errorf("policy first_delay %v is negative", p.FirstDelay)
	case p.MaxDelay < 0 || p.MaxDelay > maxTotal:
		return p, fmt.Errorf("policy max_delay %v is not between 1ns and %v", p.MaxDelay, maxTotal)
	case p.Timeout < 0:
		return p, fmt.Errorf("policy timeout %v is negative", p.Timeout)
	}
	return p, nil
}

func orDefault(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

// throttledFirst is the delay before the first retry of a throttled call,
// before jitter.
const throttledFirst = time.Second

// Delay is the wait before retry n (1 is the first), for u in [0,1):
//
//	min(MaxDelay, FirstDelay·2^(n-1)) · (0.5 + u)
//
// Exponential backoff with a jitter around the mean rather than below it, so
// that the average delay is the one configured.
func (p Policy) Delay(n int, u float64) time.Duration {
	return scale(p.backoff(p.FirstDelay, n), 0.5+u)
}

// ThrottledDelay is the wait before retry n of a call that the downstream
// throttled, with its hint (Retry-After; zero for none) and u, v in [0,1):
//
//	w = min(MaxDelay, 1s·2^(n-1))
//	max(hint, w·(0.5+u)) + v·max(hint/10, w/2)
//
// It is never before the hint, and spreads those who were given the same one.
func (p Policy) ThrottledDelay(n int, hint time.Duration, u, v float64) time.Duration {
	w := p.backoff(throttledFirst, n)
	return saturate(max(hint, scale(w, 0.5+u)), scale(max(hint/10, w/2), v))
}

func (p Policy) backoff(first time.Duration, n int) time.Duration {
	return min(p.MaxDelay, scale(first, math.Pow(2, float64(n-1))))
}

func scale(d time.Duration, by float64) time.Duration {
	f := float64(d) * by
	if f >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(f)
}

func saturate(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// policyJSON is how a Policy is stored and shown: durations as Go writes them.
type policyJSON struct {
	Attempts   int    `json:"attempts"`
	Total      string `json:"total"`
	FirstDelay string `json:"first_delay"`
	MaxDelay   string `json:"max_delay"`
	Timeout    string `json:"timeout"`
}

// MarshalJSON writes durations as text, such as "10s".
func (p Policy) MarshalJSON() ([]byte, error) {
	return json.Marshal(policyJSON{p.Attempts, p.Total.String(), p.FirstDelay.String(), p.MaxDelay.String(), p.Timeout.String()})
}

// UnmarshalJSON reads what MarshalJSON writes; a field left out is zero.
func (p *Policy) UnmarshalJSON(b []byte) error {
	var j policyJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	p.Attempts = j.Attempts
	for _, f := range []struct {
		text string
		to   *time.Duration
	}{{j.Total, &p.Total}, {j.FirstDelay, &p.FirstDelay}, {j.MaxDelay, &p.MaxDelay}, {j.Timeout, &p.Timeout}} {
		if f.text == "" {
			*f.to = 0
			continue
		}
		d, err := readDuration(f.text)
		if err != nil {
			return err
		}
		*f.to = d
	}
	return nil
}

// readDuration reads a duration as Go writes it.
func readDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a duration such as 10s", text)
	}
	return d, nil
}
