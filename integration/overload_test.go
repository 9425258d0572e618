package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A NATS server that takes connections and reads nothing is the worst that can
// happen to the HTTP API: nothing fails, and everything waits.
func TestAStalledServerCostsTheAPIABoundedTimeAndMemory(t *testing.T) {
	t.Parallel()
	const (
		clients = 2000
		patient = 20 * time.Second // for one answer
		most    = 700 << 20        // bytes: the payloads that may be in hand, twice, and what a process needs
	)
	config := file(t, "kinds.yaml", "kinds: {big.job: {effect: pure}}\n")
	nats := start(t, "serve", "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0")
	web := start(t, "serve", "--http", "127.0.0.1:0", "--server", nats.NATS, "--config", config)
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: time.Minute}
	if a := post(c, web.HTTP, nil); a.status != http.StatusAccepted {
		t.Fatalf("before: %+v", a)
	}
	eventually(t, time.Minute, "all parts of it run", func() bool { return web.log.has("scheduler runs") })
	c.CloseIdleConnections()
	before := web.open(t)

	nats.signal(t, syscall.SIGSTOP)
	defer nats.signal(t, syscall.SIGCONT)
	payload := bytes.Repeat([]byte("x"), 512<<10)
	answers := make([]publishAnswer, clients)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = post(c, web.HTTP, payload) })
	}
	all.Wait()
	slowest, statuses := time.Duration(0), map[string]int{}
	for _, a := range answers {
		slowest = max(slowest, a.took)
		statuses[fmt.Sprint(a.status, " ", a.problem)]++
		if a.err != nil || a.status != http.StatusServiceUnavailable || a.retryAfter == "" {
			t.Errorf("got %+v (%v), want 503 and when to come back", a, a.err)
		}
	}
	peak := web.peak(t)
	t.Logf("%d publishes of %d KiB: %v; the slowest took %v, the process had %d MiB at most", clients, len(payload)>>10, statuses, slowest.Round(time.Millisecond), peak>>20)
	if slowest > patient || peak > most {
		t.Errorf("the slowest answer took %v and the process had %d MiB, want %v and %d MiB at most", slowest, peak>>20, patient, most>>20)
	}

	nats.signal(t, syscall.SIGCONT)
	eventually(t, time.Minute, "jobs are taken again", func() bool { return post(c, web.HTTP, nil).status == http.StatusAccepted })
	// The NATS client forgets connections that it tried in vain, and leaves them to
	// the garbage collector.
	const tried = 10
	eventually(t, 10*time.Second, fmt.Sprint("no more is open than before, ", before), func() bool {
		c.CloseIdleConnections()
		return web.open(t) <= before+tried
	})
}

// A publishAnswer is how a publish over HTTP ended.
type publishAnswer struct {
	status     int
	problem    string
	retryAfter string
	took       time.Duration
	err        error
}

func post(c *http.Client, base string, payload []byte) publishAnswer {
	began := time.Now()
	res, err := c.Post(base+"/v1/jobs/big.job", "application/octet-stream", bytes.NewReader(payload))
	if err != nil {
		return publishAnswer{err: err, took: time.Since(began)}
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	problem := regexp.MustCompile(`/problems/[a-z-]+`).FindString(string(b))
	return publishAnswer{res.StatusCode, problem, res.Header.Get("Retry-After"), time.Since(began), err}
}

func (p *proc) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Error(err)
	}
}

// peak is the most memory that the process has had, in bytes.
func (p *proc) peak(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// open is how many files and connections the process has open.
func (p *proc) open(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
