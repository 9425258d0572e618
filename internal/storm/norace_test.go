//go:build !race

package storm

const seeds = 10
