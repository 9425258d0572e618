package budget_test

import (
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan/budget"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func ExampleLimits_Normal() {
	fmt.Println(budget.Limits{Slots: 4}.Normal())
	fmt.Println(budget.Limits{Ratio: 2}.Normal())
	// Output:
	// {0.1 10 1 4} <nil>
	// {2 10 1 16} downstream ratio 2 is not over 0 and at most 1
}

func ExampleNewDownstream() {
	d, err := budget.NewDownstream(budget.Limits{}, noon)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%+v\n", d.State(noon))
	_, err = budget.NewDownstream(budget.Limits{Floor: -1}, noon)
	fmt.Println(err)
	// Output:
	// {Breaker:closed Limit:16 InFlight:0 Tokens:10 GateUntil:0001-01-01 00:00:00 +0000 UTC OneUser:}
	// downstream floor of -1 retries per second is not between 0.001 and 1e+06
}

func ExampleDownstream_Start() {
	d, _ := budget.NewDownstream(budget.Limits{Slots: 1}, noon)
	call := func(o budget.Outcome) {
		permit, wait := d.Start(noon, nil) // nil: a first attempt
		if wait.Why != "" {
			fmt.Println("waits for:", wait.Why)
			return
		}
		defer func() { permit.End(noon, o) }()
		_, wait = d.Start(noon, nil)
		fmt.Println("one starts, the next waits for:", wait.Why)
	}
	call(budget.Outcome{Result: budget.Succeeded})
	call(budget.Outcome{Result: budget.Throttled, Hint: 30 * time.Second})
	call(budget.Outcome{})
	// Output:
	// one starts, the next waits for: limit
	// one starts, the next waits for: limit
	// waits for: gate
}

func ExampleDownstream_Held() {
	d, _ := budget.NewDownstream(budget.Limits{}, noon)
	for range 20 {
		permit, _ := d.Start(noon, nil)
		permit.End(noon, budget.Outcome{Result: budget.Failed})
	}
	held := d.Held(noon)
	fmt.Println(held.Why, held.Until.Sub(noon))
	fmt.Println(d.Held(held.Until).Why == "", d.State(held.Until).Breaker)
	// Output:
	// open 1s
	// true half_open
}

func ExampleDownstream_Take() {
	d, _ := budget.NewDownstream(budget.Limits{Cap: 1}, noon)
	token, _ := d.Take(noon, budget.Failed)
	_, wait := d.Take(noon, budget.Failed)
	fmt.Println("the second waits:", wait.Why, wait.Until.Sub(noon).Round(time.Millisecond))

	permit, _ := d.Start(noon, token)
	permit.End(noon, budget.Outcome{Result: budget.Succeeded})
	fmt.Println("once the first has succeeded:", d.State(noon).Tokens)
	// Output:
	// the second waits: token 1s
	// once the first has succeeded: 1
}

func ExampleDownstream_Paid() {
	d, _ := budget.NewDownstream(budget.Limits{Cap: 2}, noon)
	_, _ = d.Take(noon, budget.Failed)
	fmt.Println(d.State(noon).Tokens)

	// A retry that another worker paid for when it planned it comes back here.
	permit, _ := d.Start(noon, d.Paid(budget.Throttled))
	permit.End(noon, budget.Outcome{Result: budget.Succeeded})
	fmt.Println(d.State(noon).Tokens)
	// Output:
	// 1
	// 1.35
}

func ExampleDownstream_Share() {
	d, _ := budget.NewDownstream(budget.Limits{Cap: 1}, noon)
	_, _ = d.Take(noon, budget.Failed)
	d.Share(noon, 4) // workers live
	fmt.Println(d.State(noon.Add(time.Second)).Tokens)
	// Output: 0.25
}

func ExampleToken_After() {
	d, _ := budget.NewDownstream(budget.Limits{Cap: 1}, noon)
	token, _ := d.Take(noon, budget.Failed) // before the pull, not knowing what comes
	token.After(noon, budget.Throttled)     // it was throttled, so it costs less
	fmt.Println(d.State(noon).Tokens)
	// Output: 0.65
}

func ExampleToken_Back() {
	d, _ := budget.NewDownstream(budget.Limits{}, noon)
	token, _ := d.Take(noon, budget.Failed)
	token.Back(noon) // nothing was pulled
	token.Back(noon)
	fmt.Println(d.State(noon).Tokens)
	// Output: 10
}

func ExampleStormWarnings() {
	for _, line := range budget.StormWarnings(4,
		budget.Load{Downstream: "mailer", Capacity: 100, Peak: 70, Timeout: time.Second},
		budget.Load{Downstream: "payments", Capacity: 20, Peak: 15, Timeout: 2 * time.Second},
		budget.Load{Downstream: "unknown"},
	) {
		fmt.Println(line)
	}
	// Output:
	// downstream payments: a peak of 15/s is 20.5/s with its retries, and 18/s are safe: keep the peak under 12.7/s, or have a capacity of over 22.8/s
	// downstream payments: 4 workers with a concurrency of 16 make 64 calls at once, and within 2s it answers 32 safely: lower its concurrency to 8
}
