// Package demo is what the demo runs beside the real thing: a provider that
// fails in every usual way, a trickle of jobs, and a view of what happens.
package demo

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
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
)

// A Provider is a small flaky HTTP provider: it completes prompts at /complete
// and sends mail at /send. It honours idempotency keys: what was done under a
// key is done once, and asked for again it gives the original answer.
//
// How it treats a key follows from Seed and the key alone, so that runs can be
// repeated: most work at once, some fail once or twice, some are throttled, for
// a few the answer is lost after the work was done, and a few are refused for
// good, as is mail to an address at example.invalid.
//
// The zero Provider is ready; it is safe for concurrent use, and its fields must
// not change after the first call.
type Provider struct {
	// Seed changes which keys are treated how.
	Seed uint64
	// Hang is how long an answer is held back that is meant to be lost; zero
	// means thirty seconds. The caller's patience should be shorter.
	Hang time.Duration

	mu    sync.Mutex
	keys  map[string]*seen
	order []string // of the keys, oldest first
	stats Stats
}

// Stats counts what a provider did.
type Stats struct {
	Calls   int // requests with a key
	Effects int // mails sent and prompts completed, each once per key
	Repeats int // requests answered with the original answer
}

// seen is what the provider knows of a key.
type seen struct {
	calls  int
	answer []byte // nil until the work is done
}

const (
	keysKept = 100_000 // those used first are forgotten first
	hang     = 30 * time.Second
	maxBody  = 1 << 20
)

// Stats returns the counts so far.
func (p *Provider) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Serve answers on l until ctx ends. It closes l.
func (p *Provider) Serve(ctx context.Context, l net.Listener) error {
	// Requests end with ctx, so that a lost answer does not hold up the end.
	s := &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.Shutdown(grace) != nil {
			_ = s.Close()
		}
	})
	err := s.Serve(l)
	if stop() {
		return fmt.Errorf("serve the demo's provider: %w", err)
	}
	<-stopped
	return nil
}

// ServeHTTP answers POST /complete and POST /send.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Read it all: only then does the server notice that the caller has left.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	key := r.Header.Get("Idempotency-Key")
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, "the body could not be read")
	case r.URL.Path != "/complete" && r.URL.Path != "/send":
		refuse(w, http.StatusNotFound, "there is /complete and /send")
	case r.Method != http.MethodPost:
		refuse(w, http.StatusMethodNotAllowed, "use POST")
	case key == "":
		refuse(w, http.StatusBadRequest, "the header Idempotency-Key is missing")
	default:
		p.answer(w, r, key, body)
	}
}

func (p *Provider) answer(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	f := fateOf(p.Seed, key)
	result, err := work(r.URL.Path, key, body)
	if err != nil || f.refused {
		refuse(w, http.StatusBadRequest, refusal(err))
		p.count(func(s *Stats) { s.Calls++ })
		return
	}
	call, original := p.call(key, f, result)
	switch {
	case original != nil:
		_, _ = w.Write(original)
	case call <= f.failures:
		refuse(w, http.StatusInternalServerError, "out of memory, again")
	case call <= f.throttled:
		f.throttle(w.Header())
		refuse(w, http.StatusTooManyRequests, "slow down")
	case call <= f.lost:
		p.hang(r.Context())
		panic(http.ErrAbortHandler) // no answer, even to a caller that waited
	default:
		_, _ = w.Write(result)
	}
}

// call notes a call of key. It returns its number and, if the work was done at
// an earlier one, the original answer. The work is done here, before an answer
// can be lost.
func (p *Provider) call(key string, f fate, result []byte) (n int, original []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.remember(key)
	k.calls++
	p.stats.Calls++
	if k.answer != nil {
		p.stats.Repeats++
		return k.calls, k.answer
	}
	if k.calls > max(f.failures, f.throttled) {
		k.answer = result
		p.stats.Effects++
	}
	return k.calls, nil
}

func (p *Provider) remember(key string) *seen {
	if k := p.keys[key]; k != nil {
		return k
	}
	if p.keys == nil {
		p.keys = map[string]*seen{}
	}
	if len(p.order) == keysKept {
		delete(p.keys, p.order[0])
		p.order = p.order[1:]
	}
	k := new(seen)
	p.keys[key] = k
	p.order = append(p.order, key)
	return k
}

func (p *Provider) count(change func(s *Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
}

func (p *Provider) hang(ctx context.Context) {
	d := p.Hang
	if d == 0 {
		d = hang
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// A fate is how a key is treated: what happens to its first calls.
type fate struct {
	refused   bool // for good
	failures  int  // calls that fail
	throttled int  // calls that are throttled
	lost      int  // calls whose work is done and whose answer is lost
	wait      int  // milliseconds, when throttled
}

func fateOf(seed uint64, key string) fate {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, seed), key...))
	draw := binary.BigEndian.Uint64(sum[:8]) % 100
	switch {
	case draw < 2:
		return fate{refused: true}
	case draw < 5:
		return fate{lost: 1}
	case draw < 10:
		return fate{throttled: 1, wait: 200 * (1 + int(sum[8])%5)}
	case draw < 30:
		return fate{failures: 1 + int(sum[8])%2}
	}
	return fate{}
}

// throttle asks for a wait, in whole seconds where it is one.
func (f fate) throttle(h http.Header) {
	if f.wait%1000 == 0 {
		h.Set("Retry-After", strconv.Itoa(f.wait/1000))
		return
	}
	h.Set("Retry-After-Ms", strconv.Itoa(f.wait))
}

type mail struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

type prompt struct {
	Prompt string `json:"prompt"`
}

// work does what the path asks for. Its error is the caller's fault.
func work(path, key string, body []byte) ([]byte, error) {
	if path == "/send" {
		var m mail
		if err := json.Unmarshal(body, &m); err != nil || m.To == "" {
			return nil, errors.New(`send {"to": …, "text": …}`)
		}
		if strings.HasSuffix(m.To, "@"+nowhere) {
			return nil, fmt.Errorf("nobody has the address %.80s", m.To)
		}
		return encode(map[string]string{"sent": m.To, "receipt": key}), nil
	}
	var q prompt
	if err := json.Unmarshal(body, &q); err != nil || q.Prompt == "" {
		return nil, errors.New(`send {"prompt": …}`)
	}
	return encode(map[string]string{"completion": q.Prompt + " … and so they lived."}), nil
}

func refusal(err error) string {
	if err == nil {
		return "refused by the provider's rules"
	}
	return err.Error()
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(map[string]string{"error": why}))
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings only
	}
	return b
}
