package budget

import (
	"context"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// Calls lets the calls of [mulligan.Policy.Do] go by a downstream's budget; give
// it to [mulligan.WithDownstream]. Retries cost tokens, successes earn them, and
// no attempt starts while the downstream is held or has enough to do. The zero
// Calls lets every call start. It may be copied and is safe for concurrent use.
type Calls struct {
	// Downstream is shared by all who call it in this process; nil for none.
	Downstream *Downstream
	// User is whose calls they are, empty for nobody's.
	User string
}

// Start waits until the call may start, at most until ctx ends; a retry waits for
// its token first.
func (c Calls) Start(ctx context.Context, a mulligan.CallStart) (end func(err error), err error) {
	if c.Downstream == nil {
		return func(error) {}, nil
	}
	token, err := c.token(ctx, a)
	if err != nil {
		return nil, err
	}
	var p Permit
	err = c.Downstream.Await(ctx, func(now time.Time) (w Wait) {
		p, w = c.Downstream.Start(now, token)
		return w
	})
	if err != nil {
		token.Back(time.Now())
		return nil, err
	}
	return func(err error) {
		now, o := time.Now(), OutcomeOf(err)
		o.User = c.User
		p.End(now, o)
		if mulligan.MeaningOf(err).Tries == 0 { // nothing was called
			token.Back(now)
		}
	}, nil
}

// token is what the start of an attempt costs. What repeats what was tried before
// is no first attempt, though its downstream may not have seen it yet: it costs
// nothing, since the retry around it was paid for, and its success earns nothing.
func (c Calls) token(ctx context.Context, a mulligan.CallStart) (t *Token, err error) {
	switch {
	case a.After == nil && a.Again:
		return &Token{d: c.Downstream, foreign: true}, nil
	case a.After == nil:
		return nil, nil
	}
	after := Failed
	if mulligan.MeaningOf(a.After).Throttled {
		after = Throttled
	}
	err = c.Downstream.Await(ctx, func(now time.Time) (w Wait) {
		t, w = c.Downstream.Take(now, after)
		return w
	})
	return t, err
}
