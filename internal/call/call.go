// Package call names every network call of the moves between streams, so that
// a test can stop a worker, a scheduler or a replay exactly before or after any
// of them, and count them.
package call

import "context"

// A Hook is told each point that is passed: the call's name and before or
// after, such as "park.publish before". It may end its goroutine.
type Hook func(point string)

type hookKey struct{}

// With returns a context whose calls tell hook. Only tests use it.
func With(ctx context.Context, hook Hook) context.Context {
	return context.WithValue(ctx, hookKey{}, hook)
}

// Do makes the call.
func Do[T any](ctx context.Context, name string, fn func() (T, error)) (T, error) {
	hook, ok := ctx.Value(hookKey{}).(Hook)
	if !ok {
		return fn()
	}
	hook(name + " before")
	v, err := fn()
	hook(name + " after")
	return v, err
}

// Err makes a call that answers with an error only.
func Err(ctx context.Context, name string, fn func() error) error {
	_, err := Do(ctx, name, func() (struct{}, error) { return struct{}{}, fn() })
	return err
}
