package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// A Server is a NATS server in a process of its own. It ends when this one does.
type Server struct {
	URL string

	pid  int
	stop func()
}

// Start runs this program with args as a server, and waits for the line by which it
// says where it is.
func Start(ctx context.Context, args ...string) (*Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	c := exec.CommandContext(ctx, self, args...)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe() // which ends when this process does
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	s := &Server{pid: c.Process.Pid, stop: func() {
		_ = in.Close()
		_ = c.Process.Signal(os.Interrupt) // it has ended already, if that fails
		_ = c.Wait()                       // nobody needs its streams any more
	}}
	if s.URL, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		s.Stop()
		return nil, errors.New("start a server: it ended at once")
	}
	s.URL = strings.TrimSpace(s.URL)
	return s, nil
}

// Stop ends the server, and waits for its end.
func (s *Server) Stop() { s.stop() }

// memory is what the server has in memory, in bytes; zero where that cannot be
// told.
func (s *Server) memory() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.Atoi(fields[0])
	if err != nil {
		return 0
	}
	return kib << 10
}
