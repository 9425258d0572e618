// Package pull gets the messages of a durable consumer.
//
// The NATS client's Fetch takes an empty message with a header Status for the
// word of the server, and a stranger may publish such a message as a job: it
// would neither run nor be buried. Here the reply subject tells them apart: a
// job has one to acknowledge it by, which the server lets no client write, and
// no word of the server has one.
//
// Reading order: Source.Each, inbox.pull, pull.follow, pull.hand.
package pull

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Source is a durable consumer whose messages are pulled. It is safe for
// concurrent use. Close it when nobody pulls any more.
type Source struct {
	conn   *nats.Conn
	name   string
	prefix string // of the subjects of requests

	mu   sync.Mutex
	free []*inbox // those of pulls that are over
}

// From returns the consumer durable of stream, without asking the server
// whether there is one.
func From(js jetstream.JetStream, stream, durable string) *Source {
	return &Source{conn: js.Conn(), name: stream + "." + durable, prefix: apiPrefix(js.Options())}
}

// Patience is how many times as long an idle pull waits.
const Patience = 5

const (
	ackPrefix = "$JS.ACK."  // of the reply subject of each job
	most      = 500         // jobs in one pull
	words     = 16          // that the server may say in one pull; more than it does
	grace     = time.Second // for the server's word after it is due, and for what is under way then
)

// Each asks for n messages, 500 at most, and hands each to take as it arrives. It
// returns nil when all have come, or those that came until the server's wait was
// over. Every message handed out can be acknowledged, also after Each has returned.
//
// A pull after one that brought nothing is idle: it asks for one message only, and
// waits [Patience] times as long, so that to wait for jobs costs little. Once ctx
// ends it is cut short, which is [context.Canceled]; a job that another server of a
// cluster sends just then comes back after its AckWait. Others go on then, for wait
// and a little more: to cut them would strand what is under way.
//
// Without a connection Each waits for one, no longer than for a message; that is no
// error, and no message. A connection that breaks meanwhile is
// [nats.ErrDisconnected], a consumer that is deleted meanwhile
// [jetstream.ErrConsumerDeleted], one that is not there [nats.ErrNoResponders],
// and a server that says nothing [nats.ErrTimeout].
func (s *Source) Each(ctx context.Context, n int, wait time.Duration, take func(*nats.Msg)) error {
	in, err := s.open()
	if err != nil {
		return fmt.Errorf("pull from %s: %w", s.name, err)
	}
	p := in.pull(ctx, min(n, most), wait)
	p.take = take
	changes := s.conn.StatusChanged()
	defer s.conn.RemoveStatusListener(changes)
	if !s.connected(ctx, changes, p.wait) {
		s.keep(in)
		return nil
	}
	if err = s.ask(p); err == nil {
		err = p.follow(changes)
	}
	if err == nil {
		in.idle = p.got == 0
		s.keep(in)
		return nil
	}
	if s.conn.IsConnected() {
		drain(in.sub)
	}
	p.rest()
	_ = in.sub.Unsubscribe() // it has ended, or the connection is away
	return fmt.Errorf("pull from %s: %w", s.name, err)
}

// Close ends the subscriptions. Nobody may pull meanwhile or afterwards.
func (s *Source) Close() {
	for _, in := range s.free {
		_ = in.sub.Unsubscribe() // fails on a closed connection only
	}
	s.free = nil
}

// inbox is where the jobs of one pull after the other arrive. One whose pull has
// failed is used no more: the server may still send what belonged to that.
type inbox struct {
	subject string
	sub     *nats.Subscription
	came    chan *nats.Msg
	pulls   int
	idle    bool // the last one brought nothing
}

// open returns an inbox for a pull.
func (s *Source) open() (*inbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.free) - 1; last >= 0 {
		in := s.free[last]
		s.free = s.free[:last]
		return in, nil
	}
	in := &inbox{subject: s.conn.NewInbox(), came: make(chan *nats.Msg, most+words)}
	var err error
	in.sub, err = s.conn.ChanSubscribe(in.subject+".*", in.came)
	return in, err
}

// keep has an inbox for the next pull.
func (s *Source) keep(in *inbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, in)
}

// pull begins a pull for n messages.
func (in *inbox) pull(ctx context.Context, n int, wait time.Duration) *pull {
	in.pulls++
	p := &pull{subject: fmt.Sprint(in.subject, ".", in.pulls), came: in.came, left: n, wait: wait}
	if in.idle {
		p.left, p.wait, p.cut = 1, Patience*wait, ctx.Done()
	}
	return p
}

// connected waits for a connection and reports whether it is worth going on.
func (s *Source) connected(ctx context.Context, changes <-chan nats.Status, wait time.Duration) bool {
	if s.conn.IsConnected() {
		return true
	}
	patience := time.NewTimer(wait)
	defer patience.Stop()
	for !s.conn.IsConnected() && !s.conn.IsClosed() { // a closed one has an error to tell
		select {
		case <-changes:
		case <-patience.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// ask sends the request. It asks for no heartbeats: a consumer with too many
// requests would then say nothing instead of why it refuses this one.
func (s *Source) ask(p *pull) error {
	request, err := json.Marshal(struct {
		Batch   int           `json:"batch"`
		Expires time.Duration `json:"expires"`
	}{p.left, p.wait})
	if err != nil {
		return err
	}
	return s.conn.PublishRequest(s.prefix+"CONSUMER.MSG.NEXT."+s.name, p.subject, request)
}

// pull is one request and what has come of it.
type pull struct {
	subject string // of the server's words about it; a job has its own
	came    <-chan *nats.Msg
	left    int // messages still to come
	got     int
	wait    time.Duration
	cut     <-chan struct{} // nil unless it may be
	take    func(*nats.Msg)
}

// follow hands out what arrives until the pull is over. Silence for longer than
// the server waits means that it has forgotten it.
func (p *pull) follow(changes <-chan nats.Status) error {
	quiet := p.wait + grace
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	for p.left > 0 {
		if len(p.came) == 0 { // mostly there are more
			silence.Reset(quiet)
		}
		select {
		case m := <-p.came:
			if over, err := p.hand(m); over {
				return err
			}
		case status := <-changes:
			if status != nats.CONNECTED {
				return nats.ErrDisconnected
			}
		case <-p.cut:
			return context.Canceled
		case <-silence.C:
			if len(p.came) > 0 {
				continue // it was not silent: whoever took the last one took long
			}
			return fmt.Errorf("no word of the server within %v: %w", quiet, nats.ErrTimeout)
		}
	}
	return nil
}

// hand hands out a job, or reads a word of the server about this pull, which may
// say that it is over. What is neither is nobody's.
func (p *pull) hand(m *nats.Msg) (over bool, err error) {
	if strings.HasPrefix(m.Reply, ackPrefix) {
		p.left--
		p.got++
		p.take(m)
		return false, nil
	}
	if m.Subject != p.subject {
		return false, nil
	}
	status, text := m.Header.Get("Status"), m.Header.Get("Description")
	switch status {
	case "", "100": // a heartbeat
		return false, nil
	case "404", "408": // nothing more
		return true, nil
	case "503":
		return true, nats.ErrNoResponders
	}
	if strings.EqualFold(text, "Consumer Deleted") {
		return true, jetstream.ErrConsumerDeleted
	}
	return true, fmt.Errorf("the server says %s %s", status, text)
}

// drain ends the subscription so that what the server has sent by then still
// arrives: it would be redelivered only after its AckWait.
func drain(sub *nats.Subscription) {
	ended := sub.StatusChanged(nats.SubscriptionClosed)
	if sub.Drain() != nil {
		return
	}
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case <-ended:
	case <-patience.C:
	}
}

// rest hands out what has arrived when the pull was over.
func (p *pull) rest() {
	for {
		select {
		case m := <-p.came:
			_, _ = p.hand(m) // it is over already
		default:
			return
		}
	}
}

// apiPrefix begins the subjects of the server's requests.
func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	}
	return jetstream.DefaultAPIPrefix
}
