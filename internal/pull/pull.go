// Package pull gets the messages of a durable consumer.
//
// The NATS client's Fetch takes an empty message with a header Status for the
// word of the server, and a stranger may publish such a message as a job: it
// would neither run nor be buried. Here the reply subject tells them apart: a
// job has one to acknowledge it by, which the server lets no client write, and
// no word of the server has one.
//
// Reading order: Source.Each, pull.follow, pull.hand.
package pull

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Source is a durable consumer whose messages are pulled. It is safe for
// concurrent use.
type Source struct {
	conn   *nats.Conn
	name   string
	prefix string // of the subjects of requests
}

// From returns the consumer durable of stream, without asking the server
// whether there is one.
func From(js jetstream.JetStream, stream, durable string) *Source {
	return &Source{conn: js.Conn(), name: stream + "." + durable, prefix: apiPrefix(js.Options())}
}

const (
	ackPrefix = "$JS.ACK."  // of the reply subject of each job
	words     = 16          // that the server may say in one pull; more than it does
	grace     = time.Second // for the server's word after it is due, and for what is under way then
)

// Each asks for n messages and hands each to take as it arrives. It returns nil
// when n have come, or those that came until the server's wait was over. Every
// message handed out can be acknowledged, also after Each has returned.
//
// Each has no context: cutting a pull short would strand what is under way. It
// blocks for wait and a little more. Without a connection it waits for one, no
// longer than wait; that is no error, and no message. A connection that breaks
// meanwhile is [nats.ErrDisconnected], a consumer that is deleted meanwhile
// [jetstream.ErrConsumerDeleted], one that is not there [nats.ErrNoResponders],
// and a server that says nothing [nats.ErrTimeout].
func (s *Source) Each(n int, wait time.Duration, take func(*nats.Msg)) error {
	changes := s.conn.StatusChanged()
	defer s.conn.RemoveStatusListener(changes)
	if !s.connected(changes, wait) {
		return nil
	}
	p := pull{left: n, take: take, came: make(chan *nats.Msg, n+words)}
	inbox := s.conn.NewInbox()
	sub, err := s.conn.ChanSubscribe(inbox, p.came)
	if err != nil {
		return fmt.Errorf("pull from %s: %w", s.name, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails on a closed connection only
	if err = s.ask(inbox, n, wait); err == nil {
		err = p.follow(changes, wait+grace)
	}
	if err == nil {
		return nil
	}
	if s.conn.IsConnected() {
		drain(sub)
	}
	p.rest()
	return fmt.Errorf("pull from %s: %w", s.name, err)
}

// connected waits for a connection and reports whether it is worth going on.
func (s *Source) connected(changes <-chan nats.Status, wait time.Duration) bool {
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
		}
	}
	return true
}

// ask sends the request. It asks for no heartbeats: a consumer with too many
// requests would then say nothing instead of why it refuses this one.
func (s *Source) ask(inbox string, n int, wait time.Duration) error {
	request, err := json.Marshal(struct {
		Batch   int           `json:"batch"`
		Expires time.Duration `json:"expires"`
	}{n, wait})
	if err != nil {
		return err
	}
	return s.conn.PublishRequest(s.prefix+"CONSUMER.MSG.NEXT."+s.name, inbox, request)
}

// pull is one request and what has come of it.
type pull struct {
	left int // messages still to come
	take func(*nats.Msg)
	came chan *nats.Msg
}

// follow hands out what arrives until the pull is over. Silence for longer than
// quiet means that the server has forgotten it.
func (p *pull) follow(changes <-chan nats.Status, quiet time.Duration) error {
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	for p.left > 0 {
		select {
		case m := <-p.came:
			if over, err := p.hand(m); over {
				return err
			}
			silence.Reset(quiet)
		case status := <-changes:
			if status != nats.CONNECTED {
				return nats.ErrDisconnected
			}
		case <-silence.C:
			return fmt.Errorf("no word of the server within %v: %w", quiet, nats.ErrTimeout)
		}
	}
	return nil
}

// hand hands out a job, or reads a word of the server, which may say that the
// pull is over. What is neither is nobody's.
func (p *pull) hand(m *nats.Msg) (over bool, err error) {
	if strings.HasPrefix(m.Reply, ackPrefix) {
		p.left--
		p.take(m)
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
