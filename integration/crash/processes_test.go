package crash

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A fate is told every point that the processes of a tale pass, and ends one of
// them at those where it has to crash.
type fate struct {
	book *book
	// slow is how long a process needs for what comes before a point.
	slow map[string]time.Duration
	// deaf points are passed by whoever starts, and are another tale's.
	deaf func(point string) bool
	// prompt has another process take the place of one that crashed at once.
	prompt bool
	// locks are left by a process that crashes; whoever comes next asks for them
	// again and again.
	locks bool

	mu      sync.Mutex
	passed  []passing
	seen    map[string]int
	crashes []place
	died    []place
	pair    bool // two crash
}

// A place in a life is a point and how often it was passed, this time included.
type place struct {
	point string
	nth   int
}

// A passing is a process at a place.
type passing struct {
	place
	by *process
}

// starts is deaf to what every worker passes when it starts.
func starts(point string) bool {
	return strings.HasPrefix(point, "lock.") || strings.HasPrefix(point, "consumer.") || strings.HasPrefix(point, "kind.")
}

// begin begins a life in which processes end at some places. All that was before
// has come to rest.
func (f *fate) begin(crashes ...place) {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passed, f.seen, f.crashes, f.died, f.pair = nil, map[string]int{}, crashes, nil, len(crashes) > 1
}

// meets notes a point, and reports whether the process that passes it ends there.
func (f *fate) meets(p *process, point string) bool {
	if f.deaf != nil && f.deaf(point) {
		return false
	}
	if d := f.slow[point]; d > 0 {
		time.Sleep(d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[point]++
	at := place{point, f.seen[point]}
	f.passed = append(f.passed, passing{at, p})
	for i, c := range f.crashes {
		if c == at {
			f.crashes = append(f.crashes[:i:i], f.crashes[i+1:]...)
			f.died = append(f.died, at)
			return true
		}
	}
	return false
}

// ends are the places at which processes ended in this life.
func (f *fate) ends() []place {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]place(nil), f.died...)
}

// moments are the places that were passed in this life. Behind one call and before
// the next of the same process is one moment: to the server, which has all that a
// crash leaves, they are the same.
func (f *fate) moments() (all [][]place) {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range f.passed {
		if i > 0 && f.passed[i-1].by == p.by && strings.HasSuffix(f.passed[i-1].point, " after") && strings.HasSuffix(p.point, " before") {
			all[len(all)-1] = append(all[len(all)-1], p.place)
			continue
		}
		all = append(all, []place{p.place})
	}
	return all
}

// A process runs until it has ended by itself, was stopped, or has crashed.
type process struct {
	stop    context.CancelFunc
	ended   chan struct{}
	err     error // if it has ended by itself
	crashed atomic.Bool
}

// start starts a process. A crash ends each of its goroutines at the next point.
func (f *fate) start(ctx context.Context, run func(ctx context.Context) error) *process {
	life, stop := context.WithCancel(ctx)
	p := &process{stop: stop, ended: make(chan struct{})}
	life = hooked(life, func(point string) {
		if p.crashed.Load() || f.meets(p, point) {
			p.crashed.Store(true)
			stop()
			runtime.Goexit()
		}
	})
	go func() {
		defer close(p.ended)
		defer stop()
		p.err = run(life)
	}()
	return p
}

// again lets a process be started anew for as long as it crashes.
func (f *fate) again(t *testing.T, run func(ctx context.Context) error) error {
	t.Helper()
	for range 20 {
		p := f.start(t.Context(), run)
		if <-p.ended; !p.crashed.Load() {
			return p.err
		}
	}
	t.Fatal("it crashes for ever")
	return nil
}

// A service is a process that is started again whenever it has ended.
type service struct {
	fate *fate
	run  func(ctx context.Context) error

	mu  sync.Mutex
	now *process
}

// while keeps services running until do returns.
func while(t *testing.T, do func(), services ...*service) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, s := range services {
		all.Go(func() { s.keep(ctx, t) })
	}
	defer all.Wait()
	defer end()
	do()
}

func (s *service) keep(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		p := s.fate.start(ctx, s.run)
		s.mu.Lock()
		s.now = p
		s.mu.Unlock()
		<-p.ended
		if p.crashed.Load() {
			s.fate.mourn(ctx)
			continue
		}
		if p.err != nil && !strings.Contains(p.err.Error(), "did not stop") {
			t.Error(p.err)
		}
	}
}

// mourn waits until another process takes the place of one that has crashed: until
// shortly before what was in hand comes back, or a lock is free, since to idle
// until then costs more than all else. Where two crash it is at once.
func (f *fate) mourn(ctx context.Context) {
	f.mu.Lock()
	wait := mulligan.AckWait
	if f.locks {
		wait = time.Minute
	}
	wait -= 5 * time.Second
	if f.pair || f.prompt {
		wait = 0
	}
	f.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

// deploy stops the process as a deployment does; another takes its place.
func (s *service) deploy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.stop()
}
