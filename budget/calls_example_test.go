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

func ExamplePermit_EndOf() {
	d, _ := budget.NewDownstream(budget.Limits{}, time.Now())
	for _, user := range []string{"ada", "bob"} { // one user's call alone holds nobody
		permit, _ := d.Start(time.Now(), nil)
		end := permit.EndOf(user)
		end(mulligan.After(30*time.Second, errors.New("too many requests")))
		end(nil) // the first end counts
		fmt.Printf("%s: %q\n", user, d.Held(time.Now()).Why)
	}
	// Output:
	// ada: ""
	// bob: "gate"
}
