package watch

import (
	"sync"
	"time"
)

// Pulls counts what the pulls of a process from a consumer have met. It is safe for
// concurrent use.
type Pulls struct {
	mu    sync.Mutex
	open  int // under way
	asked int
	came  int
	err   error     // of the last one
	ended time.Time // when it did
}

// Begin counts a pull, and returns for how long none was under way.
func (p *Pulls) Begin() (none time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == 0 && !p.ended.IsZero() {
		none = time.Since(p.ended)
	}
	p.asked++
	p.open++
	return none
}

// Brought counts a message that came of it.
func (p *Pulls) Brought() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came++
}

// End notes how it ended.
func (p *Pulls) End(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	p.err, p.ended = err, time.Now()
}

// since returns the counts since it was called before. Pulls that are under way
// count each time.
func (p *Pulls) since() (asked, came int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, came = p.asked, p.came
	p.asked, p.came = p.open, 0
	return asked, came, p.err
}
