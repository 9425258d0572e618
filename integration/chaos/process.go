//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	grace   = 45 * time.Second // a worker finishes the jobs in hand
	restart = time.Second      // before what ended by itself is started again
)

// A process is kept running in the place of its name: what ends by itself is
// started again. It is safe for concurrent use.
type process struct {
	name string
	dir  string // of its output
	// told is called when it ended by itself, which nobody asked for.
	told func(err error)

	mu     sync.Mutex
	args   []string // the program and its arguments
	env    []string
	wanted bool
	frozen bool
	killed bool // on purpose, so that it may end badly
	cmd    *exec.Cmd
	ended  chan struct{}
}

// start runs the process; one that runs goes on.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = true
	return p.startLocked()
}

func (p *process) startLocked() error {
	if p.ended != nil {
		return nil
	}
	out, err := os.OpenFile(filepath.Join(p.dir, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the process has its own
	// ip becomes the program, so that its pid is the program's.
	cmd := exec.Command("ip", append([]string{"netns", "exec", p.name}, p.args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = append(environ(), p.env...), out, out, p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a signal is also for what it runs itself
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.ended, p.killed, p.frozen = cmd, make(chan struct{}), false, false
	go p.watch(cmd, p.ended)
	return nil
}

// watch waits for the process to end.
func (p *process) watch(cmd *exec.Cmd, ended chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	p.ended = nil
	unasked := p.wanted
	p.mu.Unlock()
	close(ended)
	if !unasked {
		return
	}
	p.told(fmt.Errorf("%s ended by itself: %v", p.name, err))
	time.Sleep(restart)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		if err := p.startLocked(); err != nil {
			p.told(err)
		}
	}
}

// end sends a signal, and returns when the process has ended and how; it is
// not started again.
func (p *process) end(s syscall.Signal) error {
	p.mu.Lock()
	p.wanted = false
	p.killed = p.killed || s == syscall.SIGKILL
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()
	if ended == nil {
		return nil
	}
	_ = syscall.Kill(-cmd.Process.Pid, s) // it may have ended
	if !p.endsWithin(grace, ended) {
		// Its log then says where its goroutines are.
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		return fmt.Errorf("%s still ran %v after %v", p.name, grace, s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed || cmd.ProcessState.Success() {
		return nil
	}
	return fmt.Errorf("%s, asked to end: %v", p.name, cmd.ProcessState)
}

// pid is the process that runs; zero is none.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// freeze stops the process where it is, and reports whether it runs.
func (p *process) freeze() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = p.ended != nil && syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) == nil
	return p.frozen
}

// thaw lets it go on.
func (p *process) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen = false; p.ended != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) // it may have ended
	}
}

// endsWithin reports whether the process ends before it has had so much time. While
// it is frozen it has none.
func (p *process) endsWithin(d time.Duration, ended <-chan struct{}) bool {
	const tick = 50 * time.Millisecond
	for had := time.Duration(0); had < d; {
		select {
		case <-ended:
			return true
		case <-time.After(tick):
		}
		p.mu.Lock()
		if !p.frozen {
			had += tick
		}
		p.mu.Unlock()
	}
	return false
}

// faulty are the lines of the process's log that tell of a mistake in its program.
func (p *process) faulty() (lines []string, err error) {
	b, err := os.ReadFile(filepath.Join(p.dir, p.name+".log"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // it never ran
	}
	for line := range strings.Lines(string(b)) {
		if mistake(line) {
			lines = append(lines, p.name+" says "+strings.TrimSpace(line))
		}
	}
	return lines, err
}

func mistake(line string) bool {
	return slices.ContainsFunc([]string{"panic", "DATA RACE", "fatal error:"}, func(word string) bool { return strings.Contains(line, word) })
}

// become runs something else in the place of a process that was ended.
func (p *process) become(args []string) error {
	p.mu.Lock()
	p.args = args
	p.mu.Unlock()
	return p.start()
}

// environ is our environment without settings of the product.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MULLIGAN_") || strings.HasPrefix(v, "NATS_")
	})
}

// wait returns when ctx is done or d has gone by.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
