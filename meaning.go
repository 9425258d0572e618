package mulligan

import (
	"errors"
	"syscall"
	"time"
)

// A Meaning is what the error of a handler says: all branches of it together,
// where errors are joined or several are wrapped. What one branch says for
// certain is said; that nothing happened all of them must say.
type Meaning struct {
	Permanent, Unusable, Refused bool          // by [Permanent], [Unusable], [RefusedCredential]
	InDoubt                      bool          // by [ErrInDoubt]
	Changed                      *ChangedError // the outermost
	Snoozed                      *SnoozeError  // the longest
	// Throttled: the downstream asked for fewer calls. Hint is the longest that it
	// asked to wait, less what of that had passed when a call by [Policy.Do] ended.
	Throttled bool
	Hint      time.Duration
	// NotStarted: the effect certainly did not happen, by [NotStarted], or because
	// the connection or the credential was refused. A call by [Policy.Do] says so
	// of all its attempts.
	NotStarted bool
	// Called: it is the error of a call by [Policy.Do], in some branch. Tries is
	// how many attempts it stands for: those of the calls, else one.
	Called bool
	Tries  int

	sure  certainty
	ended Reason // why a call ended that its handler did not hand over to the queue
	held  bool   // a call waited in vain
}

// certainty is how much is known of an effect that must not happen twice.
type certainty uint8

const (
	doubtful certainty = iota
	known              // of what the error is about: a call, or a connection
	told               // of the whole, by the handler's own word
)

// MeaningOf reads an error; nil says nothing.
func MeaningOf(err error) Meaning { return read(err, false) }

// read walks the tree of an error; handed says that it is below a [Later].
func read(err error, handed bool) (m Meaning) {
	switch e := err.(type) {
	case *CallError:
		return e.meaning(handed)
	case *laterError:
		return read(e.Err, true)
	case *PermanentError:
		m = read(e.Err, handed)
		m.Permanent, m.sure = true, told
	case *UnusableError:
		m = read(e.Err, handed)
		m.Unusable, m.sure = true, told
	case *NotStartedError:
		m = read(e.Err, handed)
		m.NotStarted, m.sure = true, told
	case *SnoozeError:
		m = Meaning{Snoozed: e, Tries: 1, sure: told}
	case *ThrottledError:
		m = read(e.Err, handed)
		m.Throttled, m.Hint = true, max(m.Hint, e.Delay)
	case *ChangedError:
		m = read(e.Err, handed)
		m.Changed = e
	case *CredentialError:
		m = read(e.Err, handed)
		m.Refused = true
		if !m.Called { // else what is known of all the call's attempts counts
			m.NotStarted, m.sure = true, max(m.sure, known)
		}
	case interface{ Unwrap() []error }:
		m = readAll(err, e.Unwrap(), handed)
	default:
		if within := errors.Unwrap(err); within != nil {
			return read(within, handed)
		}
		m = leaf(err)
	}
	return m
}

func leaf(err error) Meaning {
	m := Meaning{InDoubt: errors.Is(err, ErrInDoubt), NotStarted: errors.Is(err, syscall.ECONNREFUSED), Tries: 1}
	if m.NotStarted {
		m.sure = known
	}
	return m
}

func readAll(err error, branches []error, handed bool) (m Meaning) {
	some := false
	for _, branch := range branches {
		switch {
		case branch == nil:
		case some:
			m = m.and(read(branch, handed))
		default:
			m, some = read(branch, handed), true
		}
	}
	if !some {
		return leaf(err)
	}
	return m
}

// and is what two branches say together.
func (m Meaning) and(o Meaning) Meaning {
	m.Permanent, m.Unusable, m.Refused = m.Permanent || o.Permanent, m.Unusable || o.Unusable, m.Refused || o.Refused
	m.InDoubt, m.Throttled, m.Called, m.held = m.InDoubt || o.InDoubt, m.Throttled || o.Throttled, m.Called || o.Called, m.held || o.held
	if m.Changed == nil {
		m.Changed = o.Changed
	}
	if m.Snoozed == nil || o.Snoozed != nil && o.Snoozed.Delay > m.Snoozed.Delay {
		m.Snoozed = o.Snoozed
	}
	if m.ended == "" {
		m.ended = o.ended
	}
	m.Hint = max(m.Hint, o.Hint)
	m.NotStarted = m.NotStarted && o.NotStarted
	m.sure = min(m.sure, o.sure)
	if m.Tries > 0 && o.Tries > 0 {
		m.Tries-- // one attempt of the whole, and what was tried again within it
	}
	m.Tries += o.Tries
	return m
}

// meaning is what a failed call says: its last attempt's error, but of the
// effect and of the hint what is known of all its attempts.
func (e *CallError) meaning(handed bool) Meaning {
	m := Meaning{sure: doubtful}
	if e.Err != nil {
		m = read(e.Err, true)
	}
	saidOfIt := m.sure > doubtful && !m.NotStarted // for good, or for later
	m.Called, m.Tries, m.NotStarted = true, e.Attempts, e.NotStarted
	m.Throttled, m.Hint = m.Throttled || e.Hint > 0, e.Hint
	m.held, m.ended, m.sure = e.Reason == Held, "", doubtful
	if e.NotStarted || saidOfIt {
		m.sure = known
	}
	if !handed && e.final() {
		m.ended = e.Reason
	}
	return m
}

// Deliberate reports whether the error says something that a handler says on
// purpose, so that it is not owed to the end of its context.
func (m Meaning) Deliberate() bool {
	return m.InDoubt || m.Permanent || m.Unusable || m.Refused || m.Throttled || m.Changed != nil || m.Snoozed != nil
}

// LeavesDoubt reports whether nobody knows after it if the effect happened.
func (m Meaning) LeavesDoubt() bool { return m.InDoubt || m.sure == doubtful }
