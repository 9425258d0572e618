//go:build unix

package bench

import (
	"syscall"
	"time"
)

// processorTime is how long this process has used a processor, in it and in the
// system.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
