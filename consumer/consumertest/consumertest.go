// Package consumertest lets a service test its handlers without a server: run a
// handler on a job, get the verdict.
package consumertest

import (
	"testing"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

// Run calls the handler for one attempt of the job and returns what a worker
// would do next. It fails the test if the kind or the job could not be
// published.
func Run(t testing.TB, kind mulligan.Kind, h mulligan.Handler, job mulligan.Job) consumer.Rehearsal {
	t.Helper()
	r, err := consumer.Rehearse(t.Context(), kind, h, job)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
