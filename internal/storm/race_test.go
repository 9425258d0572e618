//go:build race

package storm

// seeds are few under the race detector, which makes a run ten times slower and
// finds nothing more in the tenth.
const seeds = 1
