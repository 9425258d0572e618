package witness

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// build returns the program, as it is shipped.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mulligan")
	c := exec.CommandContext(t.Context(), "go", "build", "-race=false", "-o", path, "../../../cmd/mulligan")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// process runs the program until the test ends.
func process(t *testing.T, program string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	c := exec.Command(program, args...)
	c.Dir, c.Stderr, c.Env = t.TempDir(), &log, append(os.Environ(), "MULLIGAN_LOG_FORMAT=json", "MULLIGAN_LOG_LEVEL=warn")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
		if t.Failed() {
			t.Logf("%v ended with:\n%s", args, log.Bytes()[max(0, log.Len()-4000):])
		}
	})
}

// play runs the roles around one worker and one scheduler, each a process, and
// returns what the checker says. spoil changes what the worker is configured to do.
func play(t *testing.T, load time.Duration, spoil func(config string) string) Report {
	t.Helper()
	const seed = 7
	program, e, dir := build(t), natstest.Server(t), t.TempDir()
	e.Provision(t, mulligan.Topology{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "worker.yaml")
	if err := os.WriteFile(config, []byte(spoil(UserRate().String()+WorkerConfig(seed, "worker1", "http://"+l.Addr().String(), 2))), 0o600); err != nil {
		t.Fatal(err)
	}
	process(t, program, "scheduler", "--server", e.URL)
	process(t, program, "worker", "--server", e.URL, "--config", config)
	var roles sync.WaitGroup
	run := func(ctx context.Context, name string, role func(ctx context.Context, log string) error) {
		roles.Go(func() {
			if err := role(ctx, filepath.Join(dir, name+".log")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all, end := context.WithCancel(t.Context())
	defer end()
	loaded, stop := context.WithTimeout(all, load)
	defer stop()
	run(all, "downstream", func(ctx context.Context, log string) error {
		return serveDownstream(ctx, DownstreamConfig{Seed: seed, Log: log}, func() (net.Listener, error) { return l, nil })
	})
	run(loaded, "operator", func(ctx context.Context, log string) error {
		return Operator(ctx, OperatorConfig{Seed: seed, Servers: []string{e.URL}, Program: program, Log: log})
	})
	for i := range 4 {
		name := fmt.Sprintf("publisher%d", i+1)
		run(loaded, name, func(ctx context.Context, log string) error {
			return Publisher(ctx, PublisherConfig{Seed: seed, Name: name, Servers: []string{e.URL}, Rate: 15, Log: log})
		})
	}
	<-loaded.Done()
	drained(t, e)
	end()
	roles.Wait()
	ev, err := Gather(t.Context(), e.JS, dir)
	if err != nil {
		t.Fatal(err)
	}
	ev.UserRate = UserRate()
	r := Check(ev)
	t.Logf("\n%v", r)
	return r
}

func TestARunWithoutFaultsIsClean(t *testing.T) {
	t.Parallel()
	r := play(t, 5*time.Second, func(config string) string { return config })
	if len(r.Violations) > 0 {
		t.Errorf("%d violations without a fault", len(r.Violations))
	}
	if r.Acked < 200 || r.Calls < r.Acked || r.Retries < 10 || r.Done < 50 || r.Finished < 50 || r.Recovered < 5 || r.Effects < 100 || len(r.Dead) < 2 || r.Excused > 0 {
		t.Errorf("too little happened to tell anything: %+v", r)
	}
}

// The same run with a program that does what it must not: once jobs are repeated
// like pure ones, without a record of their end, and attempts and budgets are
// without the bounds that were promised.
func TestARunOfAProgramThatIsWrongIsFound(t *testing.T) {
	t.Parallel()
	r := play(t, 5*time.Second, func(config string) string {
		config = strings.NewReplacer("effect: once", "effect: pure", "policy: default", "policy: {attempts: 12, total: 1m, first_delay: 10ms, max_delay: 20ms}",
			UserRate().String(), Rate{1000, 1000}.String()).Replace(config)
		return config + "downstreams:\n  mail: {ratio: 1, floor: 1000, cap: 1000}\n  pay: {ratio: 1, floor: 1000, cap: 1000}\n  model: {ratio: 1, floor: 1000, cap: 1000}\n"
	})
	for _, what := range []string{"I1 mail.report.", "I2 mail.report.", "I2 pay.hook.", "I3 mail.send.", "I8 user "} {
		if !slices.ContainsFunc(r.Violations, func(v string) bool { return strings.HasPrefix(v, what) }) {
			t.Errorf("no violation begins with %s", what)
		}
	}
}

func drained(t *testing.T, e *natstest.Env) {
	t.Helper()
	tick, deadline := time.NewTicker(100*time.Millisecond), time.NewTimer(2*time.Minute)
	defer tick.Stop()
	defer deadline.Stop()
	for {
		left, err := Drained(t.Context(), e.JS)
		if err == nil && left == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after two minutes still not drained: %s (%v)", strings.TrimSpace(left), err)
		}
	}
}
