package consumer

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
)

// What becomes of a message that waits in a worker for its nak.
func TestAMessageThatRests(t *testing.T) {
	const late = mulligan.AckWait/2 + time.Second
	for _, tt := range []struct {
		name  string
		while func(h *hand, d *delivery)
		late  time.Duration // when its time is over
		want  string        // the subject of the delivery that is answered
	}{
		{"it is answered", nil, 0, "first"},
		{"its slot has long been given to another", func(h *hand, d *delivery) { h.drop(d) }, 0, "first"},
		{"it is delivered again", func(h *hand, d *delivery) {
			if h.add(&delivery{facts: d.facts, msg: &nats.Msg{Subject: "second"}}) {
				panic("it is taken for another")
			}
		}, 0, "second"},
		{"it has been given back", func(h *hand, _ *delivery) {
			if n := h.giveBackAll(); n != 0 {
				panic("it is taken for one that runs")
			}
		}, 0, ""},
		{"the process stood still, and another may have it", nil, late, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &hand{held: map[address]*delivery{}}
			d := &delivery{facts: facts{address: address{"JOBS", 7}}, msg: &nats.Msg{Subject: "first"}, begun: true}
			h.add(d)
			h.rest(d, time.Now().Add(time.Hour), func(*nats.Msg) {})
			if tt.while != nil {
				tt.while(h, d)
			}
			got := ""
			if msg := h.rested(d, tt.late); msg != nil {
				got = msg.Subject
			}
			if got != tt.want || len(h.held) != 0 {
				t.Errorf("answered %q, and %d are held; want %q and none", got, len(h.held), tt.want)
			}
		})
	}
}

func TestAMessageRestsUntilItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hand{held: map[address]*delivery{}}
		d := &delivery{facts: facts{address: address{"JOBS", 7}}, msg: &nats.Msg{}}
		began, took := time.Now(), time.Duration(0)
		nak := func(*nats.Msg) { took = time.Since(began) }
		h.rest(d, began.Add(time.Second), nak) // it was given back before
		time.Sleep(time.Minute)
		synctest.Wait()
		if took != 0 {
			t.Errorf("what is not held is answered")
		}
		h.add(d)
		began = time.Now()
		h.rest(d, began.Add(time.Second), nak)
		time.Sleep(time.Minute)
		synctest.Wait()
		if took != time.Second || len(h.held) != 0 {
			t.Errorf("answered after %v, want 1s; %d are held", took, len(h.held))
		}
	})
}
