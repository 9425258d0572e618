//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// tools says what is missing for a sandbox, and what to do about it.
func tools() error {
	for _, name := range []string{"ip", "tc", "ss"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing: install iproute2 (apt-get install iproute2)", name)
		}
	}
	return nil
}

// sandboxed is this program again, with args, as the first process of its own
// namespaces of processes, mounts and networks. However it ends, all that it
// made ends with it: links, mounts, and every process below it.
func sandboxed(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true, // an interrupt from the terminal is for the first program alone
	}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// refused explains why a sandbox did not start.
func refused(err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("this machine does not let me make namespaces (%w): run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)", err)
	}
	return err
}

// smallDiskSize is what a disk that fills up has, in the memory of the machine.
func smallDiskSize(mode string) string {
	if mode == "" {
		return "size=192m"
	}
	return "size=3g" // for what many jobs leave behind
}

// furnish makes the mounts and the network of the sandbox that we are in.
func furnish(ctx context.Context, dir, mode string) error {
	if os.Getpid() != 1 {
		return errors.New("not in a sandbox of its own: this is for the program to call, not for people")
	}
	small := storeOf(dir, smallDisk)
	if err := os.MkdirAll(small, 0o700); err != nil {
		return err
	}
	for _, m := range []struct {
		what, on string
		flags    uintptr
		options  string
	}{
		{"", "/", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"proc", "/proc", 0, ""},
		{"tmpfs", "/run", 0, "size=16m"}, // ip keeps the names of namespaces there
		{"tmpfs", small, 0, smallDiskSize(mode)},
	} {
		if err := syscall.Mount(m.what, m.on, m.what, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w; run as root", m.what, m.on, err)
		}
	}
	return wire(ctx)
}

func storeOf(dir, server string) string { return filepath.Join(dir, "store", server) }
