package sim

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// A seat is where a process runs; another takes its place when it has ended.
type seat struct {
	name string
	env  *natstest.Env
	run  func(p *process) error
	note func(f fault) // told of every fault that happens

	mu    sync.Mutex
	fates []*fate
	now   *process
	all   []*process
}

// A fate is a fault that happens at a point, the points counted over all processes.
type fate struct {
	fault
	passed int
}

// A process may be frozen, and it may end at once: from then on nothing that it
// does reaches anybody.
type process struct {
	seat *seat
	wire *wire
	conn *nats.Conn
	ctx  context.Context // of its life, with the hook
	stop context.CancelFunc

	mu     sync.Mutex
	dead   bool
	frozen time.Time // until
	shaken []time.Time
	pause  time.Duration // until the next one takes its place
}

// start begins a process.
func (s *seat) start(ctx context.Context) (*process, error) {
	p := &process{seat: s, wire: &wire{dial: s.env.InProcessConn, cut: make(chan struct{})}}
	var err error
	p.conn, err = nats.Connect("", nats.InProcessServer(p.wire), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.ReconnectJitter(0, 0), nats.RetryOnFailedConnect(true), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return nil, err
	}
	p.ctx, p.stop = context.WithCancel(ctx)
	p.ctx = call.With(p.ctx, p.pass)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, s.all = p, append(s.all, p)
	return p, nil
}

// occupy has a process run, and another whenever one has ended, until ctx ends;
// then it waits for all of them.
func (s *seat) occupy(ctx context.Context) (err error) {
	var lives sync.WaitGroup
	defer lives.Wait()
	for ctx.Err() == nil {
		p, failed := s.start(ctx)
		if failed != nil {
			return failed
		}
		over := make(chan struct{})
		lives.Go(func() {
			defer close(over)
			defer p.conn.Close()
			_ = s.run(p) // what it could not begin or end, the next one tries
		})
		select {
		case <-over:
		case <-p.ctx.Done(): // killed, or to be replaced: the next one does not wait for its end
		}
		p.mu.Lock()
		pause := p.pause
		p.mu.Unlock()
		sleep(ctx, max(pause, 100*time.Millisecond))
	}
	return nil
}

// pass is told each point that the process passes.
func (p *process) pass(point string) {
	if f, ok := p.seat.fate(point); ok {
		p.suffer(f)
	}
	p.await()
}

// await ends the goroutine if the process is dead, and keeps it while it is frozen.
func (p *process) await() {
	for {
		p.mu.Lock()
		wait, dead := time.Until(p.frozen), p.dead
		p.mu.Unlock()
		if dead {
			runtime.Goexit()
		}
		if wait <= 0 {
			return
		}
		select {
		case <-time.After(wait):
		case <-p.wire.cut:
		}
	}
}

// fate counts a point and returns what happens there.
func (s *seat) fate(point string) (now fault, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.fates {
		if !strings.HasSuffix(point, f.Step) {
			continue
		}
		if f.passed++; f.passed == f.Point {
			now, ok = f.fault, true
		}
	}
	return now, ok
}

func (p *process) suffer(f fault) {
	p.seat.note(f)
	p.mu.Lock()
	p.shaken = append(p.shaken, time.Now())
	p.pause = f.For
	p.mu.Unlock()
	switch f.What {
	case crash:
		p.kill()
	case leave:
		p.stop()
	case freeze:
		p.mu.Lock()
		p.frozen = time.Now().Add(f.For)
		p.mu.Unlock()
		p.wire.stall(time.Now().Add(f.For))
	case stall:
		p.wire.stall(time.Now().Add(f.For))
	}
}

func (p *process) kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.wire.sever()
	p.stop()
	go p.conn.Close()
}

// quiet reports whether nothing of what the seat's processes did is still to come.
func (s *seat) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		p.mu.Lock()
		frozen := !p.dead && time.Now().Before(p.frozen)
		p.mu.Unlock()
		if frozen || p.wire.stalled() {
			return false
		}
	}
	return true
}

// current is the process that has the seat.
func (s *seat) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// spare has no fault happen at a point any more.
func (s *seat) spare() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fates = nil
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
