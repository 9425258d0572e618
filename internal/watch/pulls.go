package watch

import "sync"

// Pulls counts what the pulls of a process from a consumer have met. It is safe for
// concurrent use.
type Pulls struct {
	mu          sync.Mutex
	asked, came int
	err         error // of the last one
}

// Begin counts a pull.
func (p *Pulls) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
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
	p.err = err
}

// since returns the counts since it was called before.
func (p *Pulls) since() (asked, came int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, came = p.asked, p.came
	p.asked, p.came = 0, 0
	return asked, came, p.err
}
