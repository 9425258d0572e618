package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// refusalTakes is how long an answer takes for which no server is needed.
const refusalTakes = time.Millisecond

// provider has some servers and a queue. It does not know of its clients'
// timeouts: it works on calls, too, whose client has gone.
type provider struct {
	w      *world
	chance *rand.Rand
	busy   int
	queue  []*call
	second int64 // of the limit
	passed int   // calls within that second

	worked, wasted time.Duration // of the servers' time until the horizon
}

// call is one of a client, until it has the answer or has gone.
type call struct {
	job  *job
	end  func(err error)
	gone bool
}

// The answers, as a worker's HTTP target makes errors of them.
var (
	errTimeout     = mulligan.Typed("timeout", fmt.Errorf("post: %w", context.DeadlineExceeded))
	errPoison      = mulligan.Typed("http_500", errors.New("answered 500"))
	errUnavailable = mulligan.After(0, mulligan.Typed("http_503", errors.New("answered 503")))
	errTooMany     = mulligan.Typed("http_429", errors.New("answered 429"))
)

// call makes one; end is called once, with the error that the client sees.
func (p *provider) call(j *job, timeout time.Duration, end func(err error)) {
	c := &call{job: j, end: end}
	if venom := p.w.c.venom; venom != nil && j.user == poisonUser && !p.w.c.Cured {
		takes := refusalTakes
		if errors.Is(venom, errTimeout) {
			takes = timeout
		}
		p.w.after(takes, func() { c.answer(venom) })
		return
	}
	if err := p.refuses(); err != nil {
		p.w.after(refusalTakes, func() { c.answer(err) })
		return
	}
	p.w.after(timeout, func() { c.answer(errTimeout) })
	if p.busy == p.w.c.Servers {
		p.queue = append(p.queue, c)
		return
	}
	p.serve(c)
}

// refuses is why a call is answered at once, or nil.
func (p *provider) refuses() error {
	now := p.w.time()
	if p.w.c.Down && p.w.c.faulty(now) {
		return errUnavailable
	}
	if p.w.c.Limit > 0 {
		second := int64(now / time.Second)
		if second != p.second {
			p.second, p.passed = second, 0
		}
		if p.passed == p.w.c.Limit {
			return mulligan.After(time.Second, errTooMany) // what is left of this second, rounded up
		}
		p.passed++
	}
	if p.busy == p.w.c.Servers && len(p.queue) == p.w.c.Queue {
		return errUnavailable
	}
	return nil
}

func (p *provider) serve(c *call) {
	p.busy++
	mean := float64(p.w.c.Service)
	if p.w.c.Slow > 0 && p.w.c.faulty(p.w.time()) {
		mean *= p.w.c.Slow
	}
	began := p.w.time()
	p.w.after(time.Duration(p.chance.ExpFloat64()*mean), func() { p.served(c, began) })
}

func (p *provider) served(c *call, began time.Duration) {
	var err error
	if c.job.user == poisonUser && !p.w.c.Cured {
		err = errPoison
	}
	took := max(min(p.w.time(), p.w.c.Horizon)-began, 0)
	p.worked += took
	if c.gone || err != nil {
		p.wasted += took
	}
	p.busy--
	if len(p.queue) > 0 {
		next := p.queue[0]
		p.queue = p.queue[1:]
		p.serve(next)
	}
	c.answer(err)
}

// answer is the first to tell the client; it waits for no second answer.
func (c *call) answer(err error) {
	if !c.gone {
		c.gone = true
		c.end(err)
	}
}
