//go:build unix && !solaris && !illumos && !aix

package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lockDir locks a file until it is closed or the process ends, however it ends.
// It holds the process's number, for people.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot be locked: %w; choose another with --data", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot be locked: %w; choose another with --data", err)
		}
		b, _ := io.ReadAll(io.LimitReader(f, 20)) // the lock says enough without it
		return nil, fmt.Errorf("is in use by another process (%s); stop it, or choose another with --data", strings.TrimSpace(string(b)))
	}
	if err := note(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot be written: %w; choose another with --data", err)
	}
	return f, nil
}

func note(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}
