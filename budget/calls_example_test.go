package budget_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

// A service that is no worker shares one budget among all its calls.
func ExampleCalls() {
	d, err := budget.NewDownstream(budget.Limits{}, time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := mulligan.WithDownstream(context.Background(), budget.Calls{Downstream: d, User: "ada"})
	tries := 0
	err = mulligan.Policy{FirstDelay: time.Millisecond}.Do(ctx, func(ctx context.Context) error {
		if tries++; tries == 1 {
			return errors.New("connection reset")
		}
		return nil
	})
	fmt.Println(tries, err)
	// Output: 2 <nil>
}
