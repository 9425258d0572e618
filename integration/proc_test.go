package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built is the program under test. It is built once for all tests, as it is
// shipped: static, and without the race detector, which its own tests have.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func program(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "mulligan"); built.err != nil {
			return
		}
		c := exec.Command("go", "build", "-race=false", "-o", filepath.Join(built.dir, "mulligan"), "../cmd/mulligan")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "mulligan")
}

// removeProgram is for the end of all tests.
func removeProgram() {
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
}

// environ is the environment without settings of the program.
func environ() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MULLIGAN_") && !strings.HasPrefix(v, "NATS_") {
			env = append(env, v)
		}
	}
	return append(env, "MULLIGAN_LOG_FORMAT=json")
}

// address is where a process says that it can be found.
type address struct {
	HTTP string `json:"http"`
	NATS string `json:"nats"`
}

// proc is the program, running.
type proc struct {
	address
	name  string
	cmd   *exec.Cmd
	log   transcript
	ended chan struct{} // closed when it has
}

// transcript is what a process writes, read while it does.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *transcript) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.text.Bytes(), []byte(text))
}

// tail is the last lines.
func (l *transcript) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimSpace(l.text.String()), "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}

// start runs the program until the test ends, and returns once it has said
// where it can be found. What it logs is shown if the test fails.
func start(t testing.TB, args ...string) *proc {
	t.Helper()
	p := &proc{name: args[0], ended: make(chan struct{})}
	p.cmd = exec.Command(program(t), append(args, "--json")...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = environ(), t.TempDir(), &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		defer close(p.ended)
		r := bufio.NewReader(out)
		line, _ := r.ReadString('\n') // an empty one says enough
		said <- line
		_, _ = io.Copy(io.Discard, r)
		_ = p.cmd.Wait() // ProcessState tells
	}()
	t.Cleanup(func() {
		p.kill(t)
		if t.Failed() {
			t.Logf("the log of %s (pid %d) ended with:\n%s", p.name, p.cmd.Process.Pid, p.log.tail(40))
		}
	})
	select {
	case line := <-said:
		if err := json.Unmarshal([]byte(line), &p.address); err != nil {
			t.Fatalf("%v did not say where it is: %q, %v", args, line, err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%v did not begin", args)
	}
	return p
}

// kill ends the process as a power cut would.
func (p *proc) kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-p.ended
}

// stop asks the process to end, and returns its exit code.
func (p *proc) stop(t testing.TB, within time.Duration) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stop %s: %v", p.name, err)
	}
	select {
	case <-p.ended:
	case <-time.After(within):
		t.Errorf("%s still runs %v after SIGTERM", p.name, within)
		p.kill(t)
	}
	return p.cmd.ProcessState.ExitCode()
}

// command runs the program to its end, and returns what it printed.
func command(t testing.TB, args ...string) []byte {
	t.Helper()
	c := exec.CommandContext(t.Context(), program(t), args...)
	var out, log bytes.Buffer
	c.Env, c.Dir, c.Stdout, c.Stderr = environ(), t.TempDir(), &out, &log
	if err := c.Run(); err != nil {
		t.Fatalf("mulligan %s: %v\n%s", strings.Join(args, " "), err, log.Bytes())
	}
	return out.Bytes()
}

// answer is command for one that may say, by its exit code, that there is nothing.
func answer(t testing.TB, args ...string) []byte {
	t.Helper()
	c := exec.CommandContext(t.Context(), program(t), args...)
	c.Env, c.Dir = environ(), t.TempDir()
	out, err := c.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("mulligan %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// decode reads JSON.
func decode[T any](t testing.TB, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %.500q", err, b)
	}
	return v
}

// fetch reads a page of a process; one that is not found is a page, too.
func fetch(t testing.TB, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
		t.Fatalf("GET %s: %d %.500q, %v", url, resp.StatusCode, b, err)
	}
	return b
}

// file writes a file of the test's.
func file(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits until cond holds, and fails the test if it does not in time.
func eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(within), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %v still not: %s", within, what)
		}
	}
}
