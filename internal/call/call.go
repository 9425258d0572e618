// Package call names every network call of the moves between streams, and the
// call of a handler, so that a test can stop a worker, a scheduler or whoever
// publishes or replays exactly before or after any of them, and count them.
//
// A name is a constant where the call is made: the tests list all of them, and
// find the calls that have none.
package call

import "context"

// A Step is the name of one call.
type Step string

// An Update is the name of a change by compare-and-set, which is two steps.
type Update string

// Load is the step that reads what is to be changed.
func (u Update) Load() Step { return Step(u) + ".load" }

// Store is the step that writes it.
func (u Update) Store() Step { return Step(u) + ".store" }

// A Move is the name of a move of a message, which is two steps.
type Move string

// Publish is the step that stores the successor.
func (m Move) Publish() Step { return Step(m) + ".publish" }

// Ack is the step that acknowledges the origin.
func (m Move) Ack() Step { return Step(m) + ".ack" }

// A Hook is told each point that is passed: the step's name and before or
// after, such as "park.publish before". It may end its goroutine.
type Hook func(point string)

type hookKey struct{}

// With returns a context whose calls tell hook. Only tests use it.
func With(ctx context.Context, hook Hook) context.Context {
	return context.WithValue(ctx, hookKey{}, hook)
}

// Do makes the call.
func Do[T any](ctx context.Context, step Step, fn func() (T, error)) (T, error) {
	hook, ok := ctx.Value(hookKey{}).(Hook)
	if !ok {
		return fn()
	}
	hook(string(step) + " before")
	v, err := fn()
	hook(string(step) + " after")
	return v, err
}

// Err makes a call that answers with an error only.
func Err(ctx context.Context, step Step, fn func() error) error {
	_, err := Do(ctx, step, func() (struct{}, error) { return struct{}{}, fn() })
	return err
}
