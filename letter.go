package mulligan

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// A Letter is a dead job with the reason it died. Its payload and headers are
// as published.
type Letter struct {
	Envelope
	Reason    Reason
	ErrorType string
	Error     string
	Attempts  int
	History   []Attempt
	BuriedAt  time.Time
	// Seq is the letter's sequence in its stream; replay deletes by it.
	Seq uint64
}

// maxHistoryHeader bounds the history in a letter, in bytes; beside long headers of
// the job there is less room for it.
const maxHistoryHeader = 16 << 10

// Message is the letter as it is stored on subject.
func (l *Letter) Message(subject string) *nats.Msg {
	m := l.Moved(subject)
	set := func(name, value string) {
		if value != "" {
			m.Header.Set(name, value)
		}
	}
	set(headerKind, l.Kind)
	set(headerToken, l.Token)
	set(headerReason, string(l.Reason))
	set(headerErrorType, l.ErrorType)
	set(headerError, clean(l.Error))
	set(headerAttempts, strconv.Itoa(l.Attempts))
	set(headerHistory, encodeHistory(l.History, min(maxHistoryHeader, maxMoved-headerSize(l.published))))
	set(headerBuriedAt, formatTime(l.BuriedAt))
	return m
}

// OpenLetter reads what Message wrote, found at a sequence of the stream of
// letters. A letter of a malformed job opens too.
func OpenLetter(m *nats.Msg, seq uint64) (Letter, error) {
	get := func(name string) string { return lookup(m.Header, name) }
	e, err := OpenMoved(get(headerKind), get(headerToken), m)
	l := Letter{Envelope: e, Reason: Reason(get(headerReason)), ErrorType: get(headerErrorType), Error: get(headerError), Seq: seq}
	if !l.Reason.Valid() || l.Kind == "" {
		return l, fmt.Errorf("open letter %d: no kind or no known reason %.40q", seq, l.Reason)
	}
	if err != nil && l.Reason != Malformed {
		return l, fmt.Errorf("open letter %d: %w", seq, err)
	}
	if l.Attempts, err = strconv.Atoi(get(headerAttempts)); err != nil {
		return l, fmt.Errorf("open letter %d: attempts %.40q is not a number", seq, get(headerAttempts))
	}
	if l.BuriedAt, err = parseTime(headerBuriedAt, get(headerBuriedAt)); err != nil {
		return l, fmt.Errorf("open letter %d: %w", seq, err)
	}
	if h := get(headerHistory); h != "" {
		if err := json.Unmarshal([]byte(h), &l.History); err != nil {
			return l, fmt.Errorf("open letter %d: history: %w", seq, err)
		}
	}
	return l, nil
}

// Replayed returns the message that publishes the letter's job again on
// subject: the payload and key bit for bit, and as much time to its deadline
// as it had when it was published.
func (l *Letter) Replayed(subject, address string, now time.Time) *nats.Msg {
	e := l.Envelope
	m := e.Moved(subject)
	m.Header.Del(headerPublished)
	m.Header.Set(headerReplay, address)
	m.Header.Set(headerDeadline, formatTime(now.Add(e.Deadline.Sub(e.Published))))
	return m
}

// encodeHistory keeps the newest attempts that fit into a header of at most so many
// bytes, oldest first.
func encodeHistory(history []Attempt, most int) string {
	for ; len(history) > 0; history = history[1:] {
		b, err := json.Marshal(history)
		if err != nil {
			panic(err) // strings and numbers only
		}
		if len(b) <= most {
			return string(b)
		}
	}
	return ""
}

// SpentMessage hands e to the schedulers with the reason and the last error.
func (e *Envelope) SpentMessage(subject string, m Move) *nats.Msg {
	msg := e.Moved(subject)
	msg.Header.Set(headerReason, string(m.Reason))
	if m.ErrorType != "" {
		msg.Header.Set(headerErrorType, m.ErrorType)
	}
	if text := clean(m.Error); text != "" {
		msg.Header.Set(headerError, text)
	}
	msg.Header.Set(headerToken, e.Token)
	return msg
}

// OpenSpent reads what SpentMessage wrote. Only the reason is required: a
// malformed job is spent too, and what could be read of it is returned.
func OpenSpent(kind, token string, m *nats.Msg) (Envelope, Move) {
	if own := lookup(m.Header, headerToken); own != "" {
		token = own
	}
	e, err := OpenMoved(kind, token, m)
	move := Move{Verb: Spend, Reason: Reason(lookup(m.Header, headerReason)), ErrorType: lookup(m.Header, headerErrorType), Error: lookup(m.Header, headerError)}
	if !move.Reason.Valid() {
		move = Move{Verb: Spend, Reason: Malformed, Error: fmt.Sprintf("spent without a known reason: %.40q", move.Reason)}
	}
	if err != nil && move.Reason != Malformed {
		move = Move{Verb: Spend, Reason: Malformed, Error: err.Error()}
	}
	return e, move
}
