package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A DownstreamConfig is what the downstream of the run needs to know.
type DownstreamConfig struct {
	Seed   uint64
	Calm   bool   // gives less trouble: what many jobs a second need, since few retries succeed at once
	Outage bool   // answers 503 to everything, and has no effect
	Slow   bool   // takes its time with good answers
	Listen string // address
	Log    string // path
}

// Called is the downstream's line about a call that began.
type Called struct {
	Serial  int    `json:"serial"` // over all calls
	Nth     int    `json:"nth"`    // of its kind and ID, those in an outage not counted
	Path    string `json:"path"`
	Kind    string `json:"kind"`
	ID      string `json:"id"`  // as the header has it
	Key     string `json:"key"` // the idempotency key
	Worker  string `json:"worker"`
	Attempt int    `json:"attempt"` // as the caller counts
	Payload string `json:"payload"` // its fingerprint
	Size    int    `json:"size"`
	Answer  Answer `json:"answer"`
	Receipt string `json:"receipt,omitempty"` // the body of an answer that is good
}

// Ended is its line about the end of a call, written before it answers.
type Ended struct {
	Serial int `json:"serial"`
	// Gone: the caller went away before.
	Gone bool `json:"gone,omitempty"`
}

// Calls are those that a downstream has written down in its log.
func Calls(path string) ([]Call, error) {
	var e Evidence
	lines, _, err := readLines(path)
	e.addLines(lines)
	return e.Calls, err
}

// Killed is the worker that a line of the log says is to be killed: it has called
// for a deadly job, as one that takes all memory. Empty is nobody.
func Killed(line []byte) (worker string) {
	var l Line
	if !bytes.Contains(line, []byte(deadly)) || json.Unmarshal(line, &l) != nil || l.Called == nil || l.Called.Answer.Class != deadly {
		return ""
	}
	return l.Called.Worker
}

// During reports whether the call was going on at a time.
func (c *Call) During(at time.Time) bool { return c.Began.Before(at) && c.end().After(at) }

// downstream is the role.
type downstream struct {
	cfg   DownstreamConfig
	log   *journal
	fatal context.CancelCauseFunc

	mu      sync.Mutex
	calls   int
	seen    map[string]int // calls by kind and ID
	effects map[string]int // by idempotency key
}

// Downstream answers calls until ctx ends. One that ran before remembers the
// calls and the idempotency keys, and takes no connection before it does.
func Downstream(ctx context.Context, cfg DownstreamConfig) error {
	return serveDownstream(ctx, cfg, func() (net.Listener, error) { return net.Listen("tcp", cfg.Listen) })
}

func serveDownstream(ctx context.Context, cfg DownstreamConfig, listen func() (net.Listener, error)) error {
	log, past, err := openJournal("downstream", cfg.Log)
	if err != nil {
		return err
	}
	defer log.close()
	ctx, fatal := context.WithCancelCause(ctx)
	defer fatal(nil)
	d := &downstream{cfg: cfg, log: log, fatal: fatal, seen: map[string]int{}, effects: map[string]int{}}
	for _, line := range past {
		if line.Called != nil {
			d.count(line.Called)
		}
	}
	l, err := listen()
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	s := &http.Server{Handler: d}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (d *downstream) count(c *Called) {
	d.calls = max(d.calls, c.Serial)
	if c.Answer.Class == outage {
		return
	}
	d.seen[c.Kind+"/"+c.ID] = max(d.seen[c.Kind+"/"+c.ID], c.Nth)
	if c.Answer.Effect {
		d.effects[c.Key]++
	}
}

// ServeHTTP takes one call. It is written down before anything comes of it.
func (d *downstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it never arrived
	}
	h := r.Header
	attempt, _ := strconv.Atoi(h.Get("Mulligan-Attempt")) // zero is told from every number
	c := &Called{Path: strings.TrimPrefix(r.URL.Path, "/"), Kind: h.Get("Mulligan-Kind"), ID: h.Get("Mulligan-Id"), Key: h.Get("Idempotency-Key"),
		Worker: h.Get(headerWorker), Attempt: attempt, Payload: fingerprint(body), Size: len(body)}
	if !d.begin(c) {
		panic(http.ErrAbortHandler) // to return would be a 200
	}
	gone := !pause(r.Context(), c.Answer.Wait)
	if !gone && c.Answer.Status == 0 && !c.Answer.Drop {
		<-r.Context().Done()
		gone = true
	}
	if _, err := d.log.write(Line{Ended: &Ended{Serial: c.Serial, Gone: gone}}); err != nil {
		d.fatal(err)
		panic(http.ErrAbortHandler)
	}
	answer(w, c)
}

// begin counts the call and decides what becomes of it.
func (d *downstream) begin(c *Called) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, _ := kindOf(c.Path)
	c.Serial, c.Nth = d.calls+1, d.seen[c.Kind+"/"+c.ID]+1
	happened := d.effects[c.Key]
	c.Answer = honours(k.effect, behave(d.cfg.Seed, d.cfg.Calm, c.Key, c.Nth), happened > 0)
	if d.cfg.Slow && c.Answer.Class == good {
		c.Answer.Wait = 100*time.Millisecond + 20*c.Answer.Wait
	}
	if d.cfg.Outage {
		c.Answer = Answer{Class: outage, Status: http.StatusServiceUnavailable}
	}
	if c.Answer.Status == http.StatusOK {
		c.Receipt = receipt(k.effect, c.Key, happened+1)
	}
	if _, err := d.log.write(Line{Called: c}); err != nil {
		d.fatal(err)
		return false
	}
	d.count(c)
	return true
}

// receipt is the body of a good answer. Of a keyed kind a key has but one.
func receipt(e mulligan.Effect, key string, effect int) string {
	if e == mulligan.Keyed {
		effect = 1
	}
	return fmt.Sprintf("receipt %d of %s", effect, key)
}

func answer(w http.ResponseWriter, c *Called) {
	if c.Answer.Status == 0 {
		panic(http.ErrAbortHandler) // the connection breaks without a word
	}
	if c.Answer.Hint > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(c.Answer.Hint/time.Second)))
	}
	if c.Answer.Outcome != "" {
		w.Header().Set("Mulligan-Outcome", c.Answer.Outcome)
	}
	w.WriteHeader(c.Answer.Status)
	_, _ = io.WriteString(w, c.Receipt) // to whoever is still there
}
