package main

import (
	"context"
	"errors"
	"fmt"
)

// A stage is a part of the program that runs until its context ends.
type stage struct {
	name string
	run  func(context.Context) error
}

// runStages runs all stages until ctx ends or one of them does. Then it stops
// them one after the other, in the order given, each when the one before has
// ended.
func runStages(ctx context.Context, stages []stage) error {
	type running struct {
		stop context.CancelFunc
		done chan error
	}
	first := make(chan string, len(stages))
	var all []running
	for _, s := range stages {
		// Each has its own end: theirs must come in order.
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{stop: stop, done: make(chan error, 1)}
		go func() {
			r.done <- s.run(own)
			first <- s.name
		}()
		all = append(all, r)
	}
	var errs []error
	select {
	case <-ctx.Done():
	case name := <-first:
		if ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("the %s ended", name))
		}
	}
	for i, r := range all {
		r.stop()
		if err := <-r.done; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", stages[i].name, err))
		}
	}
	return errors.Join(errs...)
}
