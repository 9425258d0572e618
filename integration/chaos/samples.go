//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

const (
	sampleEvery = 5 * time.Second
	profilePort = 8222 // of each server
	monitorPort = 8223
)

// What is sampled: of a process its resident memory, the most it ever had, its
// open handles and its goroutines; of a stream or bucket its messages and bytes.
const (
	memory     = "memory"
	peak       = "peak memory"
	handles    = "handles"
	goroutines = "goroutines"
	messages   = "messages"
	held       = "bytes"
)

// A sample is one figure of a process or a stream.
type sample struct {
	At    time.Time `json:"at"`
	Of    string    `json:"of"`
	Life  int       `json:"life,omitempty"` // of a process: its pid
	What  string    `json:"what"`
	Value float64   `json:"value"`
}

// watch samples everything now and then, until ctx ends.
func (r *rig) watch(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		var asked sync.WaitGroup
		asking, cancel := context.WithTimeout(ctx, sampleEvery-time.Second)
		asked.Go(func() { r.sampleStreams(asking) })
		for _, name := range slices.Concat(servers(), ours()) {
			asked.Go(func() { r.sampleProcess(asking, name) })
		}
		asked.Wait()
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *rig) saw(s sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, s)
}

// sampleStreams may see nothing, while servers are away.
func (r *rig) sampleStreams(ctx context.Context) {
	all, err := witness.Streams(ctx, r.js)
	if err != nil {
		return
	}
	at := time.Now()
	for name, state := range all {
		r.saw(sample{At: at, Of: name, What: messages, Value: float64(state.Msgs)})
		r.saw(sample{At: at, Of: name, What: held, Value: float64(state.Bytes)})
	}
}

// sampleProcess sees of a process what it can: one that is frozen or cut off does
// not say how many goroutines it has.
func (r *rig) sampleProcess(ctx context.Context, name string) {
	pid, at := r.processes[name].pid(), time.Now()
	if pid == 0 {
		return
	}
	see := func(what string, value float64, err error) {
		if err == nil && r.processes[name].pid() == pid {
			r.saw(sample{At: at, Of: name, Life: pid, What: what, Value: value})
		}
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	now, most, err := resident(filepath.Join(proc, "status"))
	see(memory, now, err)
	see(peak, most, err)
	open, err := os.ReadDir(filepath.Join(proc, "fd"))
	see(handles, float64(len(open)), err)
	n, err := r.goroutines(ctx, name)
	see(goroutines, n, err)
}

// resident reads what memory a process has, and had at most, in bytes.
func resident(status string) (now, most float64, err error) {
	b, err := os.ReadFile(status)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			now = kib * 1024
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kib); n == 1 {
			most = kib * 1024
		}
	}
	if now == 0 { // it has ended
		return 0, 0, fmt.Errorf("%s says nothing of memory", status)
	}
	return now, most, nil
}

// goroutines asks a process how many it has: a server its profile, one of ours its
// metrics.
func (r *rig) goroutines(ctx context.Context, name string) (float64, error) {
	url, before := "http://"+address(name)+httpPort+"/metrics", "\ngo_goroutines "
	if slices.Contains(servers(), name) {
		url, before = profile(name, 1), "goroutine profile: total "
	}
	b, err := get(ctx, url)
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte(before))
	number, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.ParseFloat(string(number), 64)
}

// profile is where a server says what its goroutines do: 1 sums them up, 2 is all.
func profile(server string, debug int) string {
	return fmt.Sprintf("http://%s:%d/debug/pprof/goroutine?debug=%d", address(server), profilePort, debug)
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+httpToken)
	req.Close = true // or we would be one of its handles
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(resp.Body)
}

// A level is where a series was once it had warmed up, and where it ended: the
// medians of the fifth that follows the first third, and of the last fifth.
type level struct {
	Early, Late, Peak float64
	Points            int
}

// shortest is how many points tell anything.
const shortest = 12

func levelOf(points []float64) level {
	n := len(points)
	if n < shortest {
		return level{Points: n}
	}
	return level{Early: median(points[n/3 : n/3+n/5]), Late: median(points[n-n/5:]), Peak: slices.Max(points), Points: n}
}

// holds reports whether the series has levelled off: it ended no more than a fifth,
// and slack besides, above where it was.
func (l level) holds(slack float64) bool { return l.Late <= 1.2*l.Early+slack }

func median(points []float64) float64 {
	sorted := slices.Sorted(slices.Values(points))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// longest is the series of a thing in its longest life, within a time.
func longest(all []sample, of, what string, in phase) (points []float64) {
	lives := map[int][]float64{}
	for _, s := range all {
		if s.Of == of && s.What == what && in.has(s.At) {
			lives[s.Life] = append(lives[s.Life], s.Value)
			if len(lives[s.Life]) > len(points) {
				points = lives[s.Life]
			}
		}
	}
	return points
}
