//go:build !unix || solaris || illumos || aix

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// lockDir creates a file anew. Where a file that is open cannot be removed, as
// on Windows, the file of a process that lives stays in the way of another, and
// that of one that died does not.
func lockDir(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("is in use by another process: %w; stop it, or choose another with --data", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot be locked: %w; choose another with --data", err)
	}
	return f, nil
}
