package scheduler

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/clock"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestALetterTellsWhenItWasBuriedByTheServersClock(t *testing.T) {
	for _, off := range []time.Duration{-30 * time.Second, 30 * time.Second, -500 * time.Millisecond} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := natstest.InBubble(t)
				e.Provision(t, mulligan.Topology{})
				s, now := &Scheduler{Conn: e.Conn}, time.Now()
				s.clock.Set(clock.Sample{Asked: now, Answered: now, Server: now.Add(off)})
				if err := s.begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				job, err := mulligan.OpenJob("story.told", "a", &nats.Msg{Data: []byte("x")}, now)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.inter(t.Context(), job, mulligan.Move{Address: "RETRIES:1", Reason: mulligan.Expired}, "1"); err != nil {
					t.Fatal(err)
				}
				m, err := s.dead.GetLastMsgForSubject(t.Context(), "mulligan.dead.story.told.a")
				if err != nil {
					t.Fatal(err)
				}
				l, err := mulligan.OpenLetter(&nats.Msg{Header: m.Header, Data: m.Data}, m.Sequence)
				if wrong := l.BuriedAt.Sub(now); err != nil || wrong.Abs() > 100*time.Millisecond {
					t.Errorf("it says that it was buried %v after it was (%v)", wrong, err)
				}
			})
		})
	}
}
