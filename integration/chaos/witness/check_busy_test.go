package witness

import (
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// What happens when every core is busy: a time runs out between a worker's
// decision to call and the call, or between an answer and its arrival.
func TestTimeThatRunsOutAtTheLastMomentExplainsALetter(t *testing.T) {
	// missing is a job whose last attempt came to no call, so long before its deadline.
	missing := func(before time.Duration) *maker {
		m := newMaker()
		m.publish("model.ask", "a", func(p *Published) { p.Deadline = m.now.Add(time.Minute) })
		for range 4 {
			m.call("model.ask", "a", fails())
		}
		l := m.bury("model.ask", "a", mulligan.AttemptsExhausted)
		l.History[3].At, l.History[3].ErrorType = noon().Add(time.Minute-before), "timeout"
		m.e.Records["model.ask.a"].History = l.History
		m.e.Calls = m.e.Calls[:3]
		return m
	}
	// unheard is a once job that was throttled and then done, and whose caller does
	// not know that.
	unheard := func(hint time.Duration) *maker {
		m := newMaker()
		m.publish("pay.hook", "a", nil)
		for range 3 {
			a := waits(hint)
			a.Outcome = notStarted
			m.call("pay.hook", "a", a)
			m.after(hint)
		}
		m.call("pay.hook", "a", fine())
		l := m.bury("pay.hook", "a", mulligan.InDoubt)
		for i := range 3 {
			l.History[i].Delay = hint
		}
		l.History[3].ErrorType, m.e.Records["pay.hook.a"].History = "timeout", l.History
		return m
	}
	for _, c := range []struct {
		name  string
		m     *maker
		clean bool
	}{
		{"an attempt that began at its deadline", missing(0), true},
		{"an attempt that began long before its deadline", missing(30 * time.Second), false},
		{"a call at the end of the total", unheard(3 * time.Second), true},
		{"a call well before the end of the total", unheard(0), false},
	} {
		if found := Check(c.m.e).Violations; (len(found) == 0) != c.clean {
			t.Errorf("%s: got %q, want clean = %v", c.name, found, c.clean)
		}
	}
}

// A publisher goes on with what nobody knows, also behind an answer that says so.
func TestAnUnsureAnswerIsNoAnswer(t *testing.T) {
	line := func(what, id string) Line {
		return Line{Published: &Published{What: what, Kind: "mail.send", ID: id, Payload: id}}
	}
	_, open := unanswered([]Line{line(Trying, "a"), line(Unsure, "a"), line(Trying, "b"), line(Unsure, "b"), line(Trying, "b"), line(Acked, "b")})
	if len(open) != 1 || open[0].ID != "a" {
		t.Errorf("left are %+v, want a", open)
	}
}

func TestACalmDownstreamGivesAThirdOfTheTrouble(t *testing.T) {
	trouble := map[bool]int{}
	for n := range 3000 {
		p := draw(PublisherConfig{Seed: 3, Name: "publisher-4", Load: Load{Calm: true}}, n, true)
		for _, calm := range []bool{false, true} {
			a := behave(3, calm, keyOf(p.Kind, p.ID), 1)
			if a.Class != good {
				trouble[calm]++
			}
			if k, _ := kindOf(p.Kind); calm && a.Hint > 0 && p.User != k.downstream+"-limited" {
				t.Errorf("job %d is told to wait, and its user is %q: another would have all calls held", n, p.User)
			}
		}
	}
	if share := float64(trouble[true]) / float64(trouble[false]); share < 0.25 || share > 0.42 {
		t.Errorf("calm trouble is %.2f of the usual, want a third", share)
	}
}
