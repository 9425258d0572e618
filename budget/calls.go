package budget

import (
	"context"
	"errors"
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

// callToken is the token of a retry by [mulligan.Policy.Do].
type callToken struct{ token *Token }

func (t callToken) Back() { t.token.Back(time.Now()) }

// Retry takes the token of a retry, waiting for it until ctx ends.
func (c Calls) Retry(ctx context.Context, after error) (mulligan.RetryToken, error) {
	if c.Downstream == nil {
		return callToken{}, nil
	}
	var t callToken
	result := OutcomeOf(after).Result
	err := c.Downstream.Await(ctx, func(now time.Time) (w Wait) {
		t.token, w = c.Downstream.Take(now, result)
		return w
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Start waits until the call may start, at most until ctx ends.
func (c Calls) Start(ctx context.Context, retry mulligan.RetryToken) (end func(err error), err error) {
	if c.Downstream == nil {
		return func(error) {}, nil
	}
	t, ours := retry.(callToken)
	if retry != nil && !ours {
		return nil, errors.New("start a call: the retry's token is of another budget")
	}
	var p Permit
	err = c.Downstream.Await(ctx, func(now time.Time) (w Wait) {
		p, w = c.Downstream.Start(now, t.token)
		return w
	})
	if err != nil {
		return nil, err
	}
	return p.EndOf(c.User), nil
}

// EndOf returns the function that ends the permit with a call's error, as
// [OutcomeOf] reads it. user is whose call it was, empty for nobody's.
func (p Permit) EndOf(user string) func(err error) {
	return func(err error) {
		o := OutcomeOf(err)
		o.User = user
		p.End(time.Now(), o)
	}
}
