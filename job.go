package mulligan

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
)

// A Job is one logical operation. Its kind and ID are its identity: the
// idempotency key under which it runs once.
type Job struct {
	// Kind names the operation.
	Kind string
	// ID is the idempotency key within the kind, at most 255 bytes of text. A
	// pure job may leave it empty: its publisher then gets a random one.
	ID string
	// User and Task are optional, at most 255 bytes each. Retries are budgeted
	// per user, and per task over all its jobs.
	User, Task string
	// TaskRetries is how many retries the task may have had, this job's included,
	// when this job asks for one; zero means 5, and 100 is the most.
	TaskRetries int
	// Payload is handed to the handler untouched.
	Payload []byte
	// ContentType and TraceParent travel with the job to an HTTP target.
	ContentType, TraceParent string
	// NotBefore is when the job may run first; zero means at once.
	NotBefore time.Time
	// Deadline bounds everything, waiting included; no attempt starts after
	// it. Zero means 24 hours after publishing; at most 30 days.
	Deadline time.Time
	// Header has any other headers, carried along untouched. Names beginning
	// with Mulligan- or Nats- are reserved, and so is Status on a job without a
	// payload. What a handler changes in it stays with that attempt.
	Header nats.Header

	// Attempt and AttemptsMax are set for the handler: the number of this call
	// (1 is the first) and how many there are at most.
	Attempt, AttemptsMax int
	// Steps is set for the handler too; [Step] uses it. It is nil in a pure kind.
	Steps Steps
}

// DefaultTaskRetries is how many retries the jobs of a task may have together,
// and MaxTaskRetries the most that a job may ask for.
const (
	DefaultTaskRetries = 5
	MaxTaskRetries     = 100
)

// DefaultDeadline is how long after publishing a job may start its last
// attempt, and MaxDeadline how far away a deadline may be.
const (
	DefaultDeadline = 24 * time.Hour
	MaxDeadline     = 30 * 24 * time.Hour
)

// Key is the idempotency key for the downstream: the same at every attempt,
// different for every kind and ID, at most 255 printable ASCII characters.
func (j *Job) Key() string {
	key := j.Kind + "/" + Token(j.ID)
	if len(key) <= maxText {
		return key
	}
	return j.hashedKey()
}

func (j *Job) hashedKey() string {
	sum := sha256.Sum256([]byte(j.ID))
	return j.Kind + "/=" + hex.EncodeToString(sum[:])
}

const (
	maxText  = 255
	maxPlain = 128
)

// plain reports whether an ID is its own token.
func plain(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' && c != '-' {
			return false
		}
	}
	return len(id) > 0 && len(id) <= maxPlain
}

// Token is the form of an ID in subjects and keys: a plain ID itself, any
// other "=" and its base64url.
func Token(id string) string {
	if plain(id) {
		return id
	}
	return "=" + base64.RawURLEncoding.EncodeToString([]byte(id))
}

// ParseToken returns the ID of a token, and an error if no ID has this token.
func ParseToken(token string) (id string, err error) {
	if plain(token) {
		return token, nil
	}
	encoded, ok := strings.CutPrefix(token, "=")
	if !ok {
		return "", fmt.Errorf("%w: token %.80q is neither plain nor encoded", ErrBadID, token)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return "", fmt.Errorf("%w: token %.80q: %w", ErrBadID, token, err)
	}
	id = string(raw)
	if err := checkID(id); err != nil {
		return "", err
	}
	if Token(id) != token {
		return "", fmt.Errorf("%w: token %.80q encodes an ID that needs no encoding", ErrBadID, token)
	}
	return id, nil
}

// SafeToken is the token itself if an ID has it. For what a stranger wrote it is
// a short stand-in that no ID has, so that subjects made of it stay short.
func SafeToken(token string) string {
	if _, err := ParseToken(token); err == nil {
		return token
	}
	return "~" + string(FingerprintOf([]byte(token)))
}

func checkID(id string) error {
	if id == "" {
		return fmt.Errorf("%w: it is empty", ErrBadID)
	}
	if why := badText(id); why != "" {
		return fmt.Errorf("%w: %.80q %s", ErrBadID, id, why)
	}
	return nil
}

// badText says why s cannot be a header's value, or nothing.
func badText(s string) string {
	switch {
	case len(s) > maxText:
		return fmt.Sprintf("is over %d bytes", maxText)
	case !utf8.ValidString(s):
		return "is not valid UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "has a control character"
	case strings.TrimSpace(s) != s:
		return "begins or ends with white space"
	}
	return ""
}

// A Fingerprint identifies a payload: half of its SHA-256, in hex.
type Fingerprint string

// FingerprintOf returns the fingerprint of a payload.
func FingerprintOf(payload []byte) Fingerprint {
	sum := sha256.Sum256(payload)
	return Fingerprint(hex.EncodeToString(sum[:16]))
}
