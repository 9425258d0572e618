package mulligan

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
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
	// Once jobs have a side effect on a downstream that honours no key, such as
	// SMTP. They need an ID, and are retried only when the effect certainly did
	// not happen; after a doubtful failure they are spent as [InDoubt], for a
	// person to decide. A refused connection counts as nothing done: a handler
	// that has an effect before it connects elsewhere must use [Step].
	Once Effect = "once"
)

func (e Effect) validate() error {
	switch e {
	case Pure, Keyed, Once:
		return nil
	case "":
		return errors.New("no effect; say what running it twice would do: pure, keyed or once")
	}
	return fmt.Errorf("effect %.40q is not one of pure, keyed, once", string(e))
}

// NeedsID reports whether a job of this effect must be given an ID by its
// publisher.
func (e Effect) NeedsID() bool { return e == Keyed || e == Once }

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
	// KeyTTL is for how long the downstream of a keyed kind remembers a key; zero
	// means 24 hours. A dead letter whose first doubtful attempt is older is in
	// doubt: its key may be forgotten.
	KeyTTL time.Duration `json:"-"`
	// KeepResults records the results of a pure kind too, at the cost of a write
	// per job. Those of other kinds always are.
	KeepResults bool `json:"keep_results,omitempty"`
	// MaxResult bounds the results that are kept, of a job and of all its steps
	// together, in bytes; zero means 64 KiB. At most what a record takes, which
	// follows from the server's max_payload. Of a larger result size and
	// fingerprint are kept.
	MaxResult int `json:"max_result"`
}

// DefaultKeyTTL is for how long a downstream is taken to remember a key.
const DefaultKeyTTL = 24 * time.Hour

const maxKindName = 128

var (
	kindName       = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	downstreamName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$`)
)

// ValidKindName reports, as an error that says what to do, why name is not a
// kind's name.
func ValidKindName(name string) error {
	if len(name) > maxKindName || !kindName.MatchString(name) {
		return fmt.Errorf("%w: %s is not dot-separated tokens of letters, digits, _ and - (at most %d bytes)", ErrBadKind, brief(name), maxKindName)
	}
	return nil
}

// brief is what a stranger wrote, quoted, and no more of it than a line has room for.
func brief(s string) string {
	const room = 200 // bytes, in which a name that is one fits
	quoted := strconv.Quote(s)
	if len(quoted) > room {
		return quoted[:room] + "..."
	}
	return quoted
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
	if k.KeyTTL < 0 || k.MaxResult < 0 {
		return k, fmt.Errorf("%w: kind %s: key_ttl %v or max_result %d is negative; leave it out for the default", ErrBadKind, k.Name, k.KeyTTL, k.MaxResult)
	}
	if k.Effect == Keyed {
		orDefault(&k.KeyTTL, DefaultKeyTTL)
	}
	if k.MaxResult == 0 {
		k.MaxResult = DefaultMaxResult
	}
	p, err := k.Policy.Normal()
	if err != nil {
		return k, fmt.Errorf("%w: kind %s: %w", ErrBadKind, k.Name, err)
	}
	k.Policy = p
	return k, nil
}

// kindJSON is how a Kind is stored: durations as Go writes them.
type kindJSON struct {
	*kindFields
	KeyTTL string `json:"key_ttl,omitempty"`
}

type kindFields Kind // without its methods

// MarshalJSON writes durations as text, such as "24h0m0s".
func (k Kind) MarshalJSON() ([]byte, error) {
	j := kindJSON{kindFields: (*kindFields)(&k)}
	if k.KeyTTL != 0 {
		j.KeyTTL = k.KeyTTL.String()
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes; a field left out is zero.
func (k *Kind) UnmarshalJSON(b []byte) error {
	j := kindJSON{kindFields: (*kindFields)(k)}
	if err := json.Unmarshal(b, &j); err != nil || j.KeyTTL == "" {
		return err
	}
	var err error
	k.KeyTTL, err = readDuration(j.KeyTTL)
	return err
}

// Fingerprint identifies what a kind is declared as, its defaults filled in: it
// is short, and another one for every other declaration.
func (k Kind) Fingerprint() string {
	const short = 12
	if n, err := k.Normal(); err == nil {
		k = n
	}
	return string(FingerprintOf(k.encode()))[:short]
}

func (k Kind) encode() []byte {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return b
}
