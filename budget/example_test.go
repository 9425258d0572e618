package budget_test

import (
	"context"
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func ExampleRate_Normal() {
	fmt.Println(budget.Rate{}.Normal())
	fmt.Println(budget.Rate{PerSecond: -1}.Normal())
	// Output:
	// {1 10} <nil>
	// {-1 10} user rate of -1 per second with a burst of 10 is not between 0 and 1e6 each
}

func ExampleUsers_Take() {
	env, stop := natstest.Start()
	defer stop()
	ctx := context.Background()
	topology := mulligan.Topology{}
	if err := topology.Ensure(ctx, env.JS); err != nil {
		fmt.Println(err)
		return
	}
	users, err := budget.Open(ctx, env.JS, topology, budget.Rate{PerSecond: 0.1, Burst: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	due := time.Now()
	for range 4 {
		place, err := users.Take(ctx, "ada", due, due.Add(15*time.Second))
		if err != nil {
			fmt.Println(err)
			return
		}
		if place.Denied {
			fmt.Println("no place before the deadline")
			continue
		}
		fmt.Println("in", place.At.Sub(due).Round(10*time.Second))
	}
	// Output:
	// in 0s
	// in 0s
	// in 10s
	// no place before the deadline
}
