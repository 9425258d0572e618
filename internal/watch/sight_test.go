package watch

import (
	"errors"
	"testing"
)

// What one look says, whatever made it so.
func TestWhyJobsWaitInVain(t *testing.T) {
	no := errors.New("no")
	for _, c := range []struct {
		name string
		s    sight
		want string
	}{
		{"an idle queue is not stuck", sight{asked: 16}, ""},
		{"jobs that come are not stuck", sight{asked: 16, came: 3, waiting: 1000}, ""},
		{"a job published this moment may still come", sight{asked: 16, waiting: 1}, stuckUndelivered}, // so one look is not enough
		{"other workers get the jobs", sight{asked: 16, waiting: 1000, moved: true}, ""},
		{"others have the jobs in hand", sight{asked: 16, unacked: 1000}, ""},
		{"slots at work ask for nothing", sight{Own: Own{Busy: true}, waiting: 1000}, ""},
		{"handlers that wait for a bucket ask for nothing", sight{Own: Own{Busy: true}, refused: no, waiting: 1000, moved: true}, ""},
		{"a downstream that is held asks for nothing", sight{Own: Own{Held: true}, waiting: 1000}, ""},
		{"a held downstream is not looked at", sight{Own: Own{Held: true}, missing: no, fault: "wrong", paused: true, waiting: 1000}, ""},
		{"what was not asked about is not known", sight{asleep: true, asked: 16, waiting: 1000}, ""},
		{"handlers that never end hold all slots, held or not", sight{Own: Own{Overdue: true, Held: true}}, stuckHandlers},
		{"no consumer", sight{asked: 16, missing: no}, stuckMissing},
		{"no consumer, and slots at work", sight{Own: Own{Busy: true}, missing: no}, stuckMissing},
		{"no answer", sight{asked: 16, silent: no}, stuckNoAnswer},
		{"no answer about a consumer that delivers", sight{asked: 16, came: 1, silent: no}, ""},
		{"a consumer that is wrong, though some jobs come", sight{asked: 16, came: 5, fault: "wrong"}, stuckFault},
		{"jobs passed over, though others come", sight{asked: 16, came: 5, passed: "a"}, stuckPassed},
		{"a pause while jobs wait", sight{asked: 16, paused: true, waiting: 1}, stuckPaused},
		{"a pause while redeliveries wait", sight{asked: 16, paused: true, unacked: 1}, stuckPaused},
		{"a pause while nothing waits", sight{asked: 16, paused: true}, ""},
		{"the server refuses requests", sight{asked: 8, refused: no, waiting: 1}, stuckRefused},
		{"a pull that failed is tried again later", sight{refused: no, waiting: 1}, stuckRefused},
		{"refused, and nothing waits", sight{asked: 8, refused: no}, ""},
		{"asked for in vain", sight{asked: 8, waiting: 1}, stuckUndelivered},
		{"asked for in vain by the slots that are free", sight{Own: Own{Busy: true}, asked: 8, waiting: 1}, stuckUndelivered},
		{"not asked for, without a reason", sight{waiting: 1}, stuckNotAsking},
	} {
		if got := c.s.why(); got != c.want {
			t.Errorf("%s: %+v is %q, want %q", c.name, c.s, got, c.want)
		}
	}
}
