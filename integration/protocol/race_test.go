//go:build race

package main

// raced has few models explored: a search is one goroutine, in which the race
// detector finds nothing and costs six times the work. make test explores all of
// them without it.
const raced = true
