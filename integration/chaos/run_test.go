//go:build linux

package main

import (
	"slices"
	"testing"
)

func TestAPanicIsAViolation(t *testing.T) {
	notes := []string{"3.2s  scheduler1 ended by itself: exit status 2", "4.0s  worker2 ended by itself: exit status 1", "5.1s  gather: no leader"}
	if got := panics(notes); !slices.Equal(got, notes[:1]) {
		t.Errorf("of %q these are panics: %q, want the first", notes, got)
	}
}
