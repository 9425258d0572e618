package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// A Query selects dead letters. Its zero fields select all.
type Query struct {
	Kind   string
	Reason mulligan.Reason
	// Limit is how many to return, the newest; zero means 100.
	Limit int
}

const defaultLimit = 100

// Letters returns dead letters, newest first. A letter that cannot be read is
// left out, and logged.
func (s *Scheduler) Letters(ctx context.Context, q Query) ([]mulligan.Letter, error) {
	if q.Limit == 0 {
		q.Limit = defaultLimit
	}
	if q.Limit < 0 {
		return nil, fmt.Errorf("limit %d is negative", q.Limit)
	}
	if q.Reason != "" && !q.Reason.Valid() {
		return nil, fmt.Errorf("reason %q is not one of %v", q.Reason, mulligan.SpentReasons())
	}
	if q.Kind != "" {
		if err := mulligan.ValidKindName(q.Kind); err != nil {
			return nil, err
		}
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	filters := []string{s.Topology.DeadRoot() + ".>"}
	if q.Kind != "" {
		root := s.Topology.DeadRoot() + "." + q.Kind
		filters = []string{root + ".*", root + ".*.*"} // the longer one is of key conflicts, and of other kinds
	}
	letters, err := s.scan(ctx, filters, q)
	slices.Reverse(letters)
	return letters, err
}

// scan reads the letters on some subjects, oldest first, and keeps the newest
// that match.
func (s *Scheduler) scan(ctx context.Context, subjects []string, q Query) ([]mulligan.Letter, error) {
	c, err := s.js.OrderedConsumer(ctx, s.Topology.DeadStream(), jetstream.OrderedConsumerConfig{FilterSubjects: subjects,
		MaxResetAttempts: 1}) // by default it tries for ever, whatever ctx says
	if err != nil {
		return nil, fmt.Errorf("%w: read dead letters: %w", mulligan.ErrUnavailable, err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: read dead letters: %w", mulligan.ErrUnavailable, err)
	}
	var letters []mulligan.Letter
	for left := info.NumPending; left > 0 && ctx.Err() == nil; {
		batch, err := c.FetchNoWait(int(min(left, pullMax)))
		if err != nil {
			return letters, fmt.Errorf("%w: read dead letters: %w", mulligan.ErrUnavailable, err)
		}
		before := left
		for msg := range batch.Messages() {
			left--
			if l, ok := s.matching(msg, q); ok {
				letters = append(letters, l)
				letters = letters[max(0, len(letters)-q.Limit):]
			}
		}
		if err := batch.Error(); err != nil {
			return letters, fmt.Errorf("%w: read dead letters: %w", mulligan.ErrUnavailable, err)
		}
		if left == before {
			break // the others went meanwhile
		}
	}
	return letters, ctx.Err()
}

func (s *Scheduler) matching(msg jetstream.Msg, q Query) (mulligan.Letter, bool) {
	meta, err := msg.Metadata()
	if err != nil {
		return mulligan.Letter{}, false
	}
	l, err := mulligan.OpenLetter(&nats.Msg{Header: msg.Headers(), Data: msg.Data()}, meta.Sequence.Stream)
	if err != nil {
		s.Log.Warn().Err(err).Str("subject", msg.Subject()).Msg("unreadable letter")
		return l, false
	}
	return l, (q.Kind == "" || l.Kind == q.Kind) && (q.Reason == "" || l.Reason == q.Reason)
}

// Letter returns the dead letter of a key, or that of a payload that came under
// another's key. It fails with [mulligan.ErrNotFound]. A malformed job is found
// by what stands for its ID in the list.
func (s *Scheduler) Letter(ctx context.Context, kind, id string) (mulligan.Letter, error) {
	if err := mulligan.ValidKindName(kind); err != nil {
		return mulligan.Letter{}, err
	}
	if err := s.connect(ctx); err != nil {
		return mulligan.Letter{}, err
	}
	of := func(token string) string { return mulligan.Subject(s.Topology.DeadRoot(), kind, token) }
	tokens := []string{mulligan.Token(id), mulligan.SafeToken(id)}
	if _, err := mulligan.ParseToken(tokens[0]); err != nil {
		tokens = tokens[1:] // no ID at all, and maybe too long to ask for
	}
	for _, token := range tokens {
		m, err := s.dead.GetLastMsgForSubject(ctx, of(token))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			continue
		case err != nil:
			return mulligan.Letter{}, fmt.Errorf("%w: read the letter of %s %.80q: %w", mulligan.ErrUnavailable, kind, id, err)
		}
		return mulligan.OpenLetter(&nats.Msg{Header: m.Header, Data: m.Data}, m.Sequence)
	}
	var beside []string // conflicts and malformed messages; letters of other kinds too
	for _, token := range slices.Compact(tokens) {
		beside = append(beside, of(token)+".*")
	}
	letters, err := s.scan(ctx, beside, Query{Kind: kind, Limit: 1})
	if err != nil || len(letters) > 0 {
		return append(letters, mulligan.Letter{})[0], err
	}
	return mulligan.Letter{}, fmt.Errorf("%w: no dead letter of %s %.80q", mulligan.ErrNotFound, kind, id)
}

// LetterAt returns the letter at a sequence of the stream of letters, as
// [Scheduler.Letters] gives it. Key conflicts and malformed messages lie beside
// the letter of their key, and only so each of them can be had. It fails with
// [mulligan.ErrNotFound].
func (s *Scheduler) LetterAt(ctx context.Context, seq uint64) (mulligan.Letter, error) {
	if err := s.connect(ctx); err != nil {
		return mulligan.Letter{}, err
	}
	var m *jetstream.RawStreamMsg
	var err error = jetstream.ErrMsgNotFound
	if seq > 0 { // the server takes zero for no question
		m, err = s.dead.GetMsg(ctx, seq)
	}
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return mulligan.Letter{}, fmt.Errorf("%w: no dead letter %d", mulligan.ErrNotFound, seq)
	case err != nil:
		return mulligan.Letter{}, fmt.Errorf("%w: read letter %d: %w", mulligan.ErrUnavailable, seq, err)
	}
	return mulligan.OpenLetter(&nats.Msg{Header: m.Header, Data: m.Data}, m.Sequence)
}
