package budget

import "time"

// A Permit is the permission of one call, to be ended exactly once, whatever
// happens: defer it where the call is made. It may be copied. The zero Permit
// permits nothing.
type Permit struct {
	d      *Downstream
	place  int
	serial uint64
}

// Retry says that the call is a retry of an attempt that ended with after, which
// may be known only once the job was looked at. Without a token it was paid for
// when it was planned, as [Downstream.Paid] has it; with one that was taken
// before the retry was known it costs what a retry after that attempt costs, if
// that is less. After its end, Retry does nothing.
func (p Permit) Retry(now time.Time, after Result) {
	p.change(now, func(c *call) {
		if c.token == nil {
			c.token = &Token{d: p.d, cost: costAfter(after), foreign: true, state: tokenUsed}
			return
		}
		c.token.lower(now, costAfter(after))
	})
}

// First says that the call is a first attempt after all: its token is given
// back. After its end, First does nothing.
func (p Permit) First(now time.Time) {
	p.change(now, func(c *call) {
		if c.token != nil {
			c.token.state = tokenGone
			c.token.refund(now, c.token.cost)
			c.token = nil
		}
	})
}

func (p Permit) change(now time.Time, do func(c *call)) {
	if p.d == nil {
		return
	}
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if c := &p.d.calls[p.place]; c.serial == p.serial {
		do(c)
	}
}

// End says how the call ended and gives its permits back. After the first, End
// does nothing. A retry's token is gone with its end, unless it was dropped:
// then it is held again, to be given back by who knows that the call never ran.
func (p Permit) End(now time.Time, o Outcome) {
	if p.d == nil {
		return
	}
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.calls[p.place]
	if c.serial != p.serial {
		return
	}
	d.calls[p.place] = call{}
	d.free = append(d.free, p.place)
	d.tick(now)
	d.flow.all--
	d.stir()
	d.settle(c.token, o.Result)
	if o.Result == Throttled && o.Hint > 0 {
		d.asked(o)
	}
	if c.generation == d.breaker.generation { // else it ends late
		d.flow.current--
		d.learn(c, o)
	}
}
