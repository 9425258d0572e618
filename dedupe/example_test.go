package dedupe_test

import (
	"context"
	"fmt"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func ExampleLedger_Update() {
	env, stop := natstest.Start()
	defer stop()
	ctx := context.Background()
	topology := mulligan.Topology{}
	if err := topology.Ensure(ctx, env.JS); err != nil {
		fmt.Println(err)
		return
	}
	ledger, err := dedupe.Open(ctx, env.JS, topology)
	if err != nil {
		fmt.Println(err)
		return
	}
	key := mulligan.RecordKey("email.send", "order-42")
	for _, run := range []string{"run-1", "run-2", "run-2"} {
		err := ledger.Update(ctx, "note", key, func(r *mulligan.Record) bool {
			if r.Noted(run) != nil {
				return false // the answer was lost, not the write
			}
			r.State = mulligan.Live
			r.Attempts++
			r.Note(mulligan.Attempt{Number: r.Attempts, Run: run, ErrorType: "http_503"})
			return true
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	record, err := ledger.Load(ctx, key)
	fmt.Println(record.State, record.Attempts, record.Last().ErrorType, err)
	// Output: live 2 http_503 <nil>
}
