package mulligan

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// Effect is what running a job twice would do. The zero Effect is an error:
// someone must have thought about it.
type Effect string

const (
	// Pure jobs may be repeated freely within the budgets, such as a read or
	// an LLM completion.
	Pure Effect = "pure"
	// Keyed jobs have a side effect on a downstream that honours an
	// idempotency key. They need an ID from their publisher, the same key goes
	// downstream at every attempt, and a key that is done never runs again.
	Keyed Effect = "keyed"
)

func (e Effect) validate() error {
	switch e {
	case Pure, Keyed:
		return nil
	case "":
		return errors.New("no effect; say what running it twice would do: pure or keyed")
	}
	return fmt.Errorf("effect %q is not one of pure, keyed", string(e))
}

// NeedsID reports whether a job of this effect must be given an ID by its
// publisher.
func (e Effect) NeedsID() bool { return e == Keyed }

// DefaultDownstream is the downstream of a kind that names none.
const DefaultDownstream = "default"

// A Kind is an operation: what its jobs do, on which downstream, and how they
// are retried. It is declared once and used by publisher and worker alike.
type Kind struct {
	// Name is dot-separated tokens of letters, digits, _ and -, at most 128
	// bytes, such as email.send.
	Name string `json:"name"`
	// Effect must be set.
	Effect Effect `json:"effect"`
	// Policy bounds the retries; the zero Policy is [DefaultPolicy].
	Policy Policy `json:"policy"`
	// Downstream is the provider that the kind calls; empty means
	// [DefaultDownstream]. Kinds of one downstream are pulled together.
	Downstream string `json:"downstream"`
}

const maxKindName = 128

var (
	kindName       = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	downstreamName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$`)
)

// ValidKindName reports, as an error that says what to do, why name is not a
// kind's name.
func ValidKindName(name string) error {
	if len(name) > maxKindName || !kindName.MatchString(name) {
		return fmt.Errorf("%w: %.140q is not dot-separated tokens of letters, digits, _ and - (at most %d bytes)", ErrBadKind, name, maxKindName)
	}
	return nil
}

// Normal returns k with its defaults filled in, or an error wrapping
// [ErrBadKind] that names the field to mend.
func (k Kind) Normal() (Kind, error) {
	if err := ValidKindName(k.Name); err != nil {
		return k, err
	}
	if err := k.Effect.validate(); err != nil {
		return k, fmt.Errorf("%w: kind %s has %w", ErrBadKind, k.Name, err)
	}
	if k.Downstream == "" {
		k.Downstream = DefaultDownstream
	}
	if !downstreamName.MatchString(k.Downstream) {
		return k, fmt.Errorf("%w: kind %s: downstream %.80q is not letters, digits and _.:- (at most 64)", ErrBadKind, k.Name, k.Downstream)
	}
	p, err := k.Policy.Normal()
	if err != nil {
		return k, fmt.Errorf("%w: kind %s: %w", ErrBadKind, k.Name, err)
	}
	k.Policy = p
	return k, nil
}

func (k Kind) encode() []byte {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return b
}
