package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// publish publishes a message, again and again until its publisher is told what
// became of it, or ends.
func (w *world) publish(ctx context.Context, i int) {
	m := w.Messages[i]
	sleep(ctx, m.At)
	p := w.seats[publishing].current()
	for p == nil {
		sleep(ctx, 10*time.Millisecond)
		p = w.seats[publishing].current()
	}
	pub := &mulligan.Publisher{Conn: p.conn, Kinds: w.kinds()}
	j := w.job(m, time.Now())
	stranger := m.Clock != 0
	for try := 1; p.ctx.Err() == nil; try++ {
		if try == 1 || stranger { // whose messages have no ID: each that was unconfirmed may be stored
			w.sends(sent{i, w.recordKey(m.Key), j})
		}
		ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
		receipt, err := w.send(ctx, pub, j, stranger)
		cancel()
		if errors.Is(err, mulligan.ErrUnconfirmed) || errors.Is(err, mulligan.ErrUnavailable) || errors.Is(err, mulligan.ErrNoTopology) {
			sleep(p.ctx, time.Second)
			continue
		}
		w.heard(told{time.Now(), i, w.recordKey(m.Key), w.payloadOf(m), err == nil, !receipt.Unverified, err != nil && try == 1}, err)
		return
	}
}

func (w *world) heard(t told, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, t)
	w.sayLocked("publisher: message %d of %s, payload %q: verified %v, %v", t.message, t.key, t.payload, t.verified, err)
}

func (w *world) sends(s sent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, s)
}

func (w *world) send(ctx context.Context, pub *mulligan.Publisher, j mulligan.Job, stranger bool) (mulligan.Receipt, error) {
	if !stranger {
		return pub.Publish(ctx, j)
	}
	js, err := jetstream.New(pub.Conn)
	if err != nil {
		return mulligan.Receipt{}, err
	}
	msg := nats.NewMsg(mulligan.Subject(w.env.Topology.JobsRoot(), j.Kind, mulligan.Token(j.ID)))
	msg.Data = j.Payload
	for name, value := range map[string]string{"mulligan-user": j.User, "MULLIGAN-TASK": j.Task, "Mulligan-Deadline": stamp(j.Deadline),
		"Mulligan-Task-Retries": retries(j.TaskRetries), "Mulligan-Not-Before": stamp(j.NotBefore), "X-Own": j.Header.Get("X-Own")} {
		if value != "" {
			msg.Header.Set(name, value)
		}
	}
	ack, err := js.PublishMsg(ctx, msg)
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api):
		return mulligan.Receipt{}, err // refused
	case err != nil:
		return mulligan.Receipt{}, errors.Join(mulligan.ErrUnconfirmed, err)
	}
	return mulligan.Receipt{Seq: ack.Sequence}, nil
}

func retries(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// job is what the publisher of a message publishes, by its clock.
func (w *world) job(m message, now time.Time) mulligan.Job {
	k := w.Keys[m.Key]
	now = now.Add(m.Clock)
	j := mulligan.Job{Kind: kindOf(k), ID: idOf(m.Key), User: k.User, Task: k.Task, Payload: []byte(w.payloadOf(m)),
		Deadline: now.Add(m.Deadline), Header: nats.Header{"X-Own": {"of " + idOf(m.Key)}}}
	if k.Task != "" {
		j.TaskRetries = taskRetries
	}
	if m.NotBefore > 0 {
		j.NotBefore = now.Add(m.NotBefore)
	}
	return j
}

// attend sees to the dead letters: what cannot be replayed is resolved by a look
// into the downstream's log.
func (w *world) attend(ctx context.Context, at time.Duration) {
	sleep(ctx, at)
	var p *process
	for p = w.seats[attending].current(); p == nil; p = w.seats[attending].current() {
		sleep(ctx, 10*time.Millisecond)
	}
	done := make(chan struct{})
	go func() { // it may end with its process
		defer close(done)
		s := &scheduler.Scheduler{Conn: p.conn}
		bounded, cancel := context.WithTimeout(p.ctx, time.Minute)
		defer cancel()
		letters, err := s.Letters(bounded, scheduler.Query{})
		if err != nil {
			return
		}
		for _, l := range letters {
			if l.Reason != mulligan.KeyConflict {
				w.revive(bounded, s, l)
			}
		}
	}()
	<-done
}

func (w *world) revive(ctx context.Context, s *scheduler.Scheduler, l mulligan.Letter) {
	d := deed{at: time.Now(), key: l.RecordKey(), verb: "replay", span: l.Deadline.Sub(l.Published)}
	w.say("a person replays %s, which is dead by %s", d.key, l.Reason)
	n := w.record(d)
	_, err := s.Replay(ctx, l.Kind, l.ID)
	if errors.Is(err, mulligan.ErrInDoubt) && w.idle(d.key) && w.quiet() {
		err = w.resolve(ctx, s, l, &d)
	}
	w.say("a person: %s %s: %v", d.verb, d.key, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	d.over = time.Now()
	w.deeds[n] = d
}

func (w *world) record(d deed) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deeds = append(w.deeds, d)
	return len(w.deeds) - 1
}

func (w *world) resolve(ctx context.Context, s *scheduler.Scheduler, l mulligan.Letter, d *deed) error {
	found, err := s.Find(ctx, &l)
	if err != nil {
		return err
	}
	j := l.Job
	if found.Record != nil {
		if step := found.Record.OpenStep(); step != nil && w.did(j.StepKey(step.Name)) {
			d.verb = "step done"
			_, err := s.ResolveStepDone(ctx, l.Kind, l.ID, scheduler.StepDone{Name: step.Name, Result: []byte(`"by hand"`)})
			return err
		}
	}
	if w.did(j.Key()) {
		d.verb = "done"
		return s.ResolveDone(ctx, l.Kind, l.ID, []byte("by hand"))
	}
	d.verb = "not done"
	_, err = s.ResolveNotDone(ctx, l.Kind, l.ID)
	return err
}
