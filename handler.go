package mulligan

import (
	"context"
	"encoding/json"
	"fmt"
)

// A Handler does a job. It speaks by error: nil is done, see [Permanent],
// [After], [Changed], [Unusable], [Snooze], [NotStarted], [RefusedCredential],
// [ErrInDoubt] and, around a call by [Policy.Do], [Later]; any other error is transient and retried within the
// policy. A panic is a failed attempt.
//
// ctx ends with the attempt's timeout and when a worker that shuts down has
// waited long enough. A handler is called concurrently.
type Handler interface {
	// Handle returns the job's result, which is recorded under its key.
	Handle(ctx context.Context, job *Job) (result []byte, err error)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, job *Job) ([]byte, error)

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, job *Job) ([]byte, error) { return f(ctx, job) }

// JSON adapts a function with typed arguments and result. A payload that does
// not decode into A is a permanent failure: it would not decode next time.
func JSON[A, R any](fn func(ctx context.Context, job *Job, args A) (R, error)) Handler {
	return HandlerFunc(func(ctx context.Context, job *Job) ([]byte, error) {
		var args A
		if err := json.Unmarshal(job.Payload, &args); err != nil {
			return nil, Permanent(Typed("bad_payload", fmt.Errorf("decode payload: %w", err)))
		}
		r, err := fn(ctx, job, args)
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(r)
		if err != nil {
			return nil, Permanent(Typed("bad_result", fmt.Errorf("encode result: %w", err)))
		}
		return b, nil
	})
}
