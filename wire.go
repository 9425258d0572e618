package mulligan

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
)

// The headers of a job, as its publisher writes them.
const (
	headerUser        = "Mulligan-User"
	headerTask        = "Mulligan-Task"
	headerTaskRetries = "Mulligan-Task-Retries"
	headerID          = "Mulligan-Id" // for people: the ID where the token encodes it
	headerDeadline    = "Mulligan-Deadline"
	headerNotBefore   = "Mulligan-Not-Before"
	headerGenerated   = "Mulligan-Generated-Id" // its publisher gave no ID and believed that it needs none
	headerContentType = "Content-Type"
	headerTraceParent = "traceparent"
)

// The headers that only workers, schedulers and replays write. What a stranger
// writes under these names on the stream of jobs is dropped when it is read.
const (
	headerPublished = "Mulligan-Published" // when the job was stored first, or last replayed
	headerReplay    = "Mulligan-Replay"    // the address of the letter that was replayed
	headerDue       = "Mulligan-Due"       // when a message that was parked comes back
	headerKind      = "Mulligan-Kind"
	headerToken     = "Mulligan-Token"
	headerReason    = "Mulligan-Reason"
	headerErrorType = "Mulligan-Error-Type"
	headerError     = "Mulligan-Error"
	headerAttempts  = "Mulligan-Attempts"
	headerHistory   = "Mulligan-History"
	headerBuriedAt  = "Mulligan-Buried-At"
)

const (
	reservedPrefix = "mulligan-"
	natsPrefix     = "nats-"
)

// An Envelope is a job as it lies in a stream. Moves carry it unchanged.
type Envelope struct {
	Job
	Token     string    // the ID's form in subjects and keys
	Published time.Time // when it was stored first, or last replayed
	Replay    string    // the address of the letter that it was replayed from
	Due       time.Time // when it was to come back, if it was parked
	Generated bool      // the ID is not its publisher's: publishing it again would give another
	published nats.Header
}

// Fingerprint identifies the payload as published.
func (e *Envelope) Fingerprint() Fingerprint { return FingerprintOf(e.Payload) }

// RecordKey is the key of the job's record in the ledger.
func (e *Envelope) RecordKey() string { return RecordKey(e.Kind, e.Token) }

// RecordKey is the ledger's key for a kind and token.
func RecordKey(kind, token string) string { return kind + "." + token }

// SplitSubject returns the kind and token at the end of a subject that begins
// with prefix and a dot.
func SplitSubject(prefix, subject string) (kind, token string) {
	rest := strings.TrimPrefix(subject, prefix+".")
	if i := strings.LastIndexByte(rest, '.'); i >= 0 {
		return rest[:i], rest[i+1:]
	}
	return rest, ""
}

// encodeJob writes the headers of j as its publisher does.
func encodeJob(j *Job) nats.Header {
	h := nats.Header{}
	for name, values := range j.Header {
		h[name] = values
	}
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	if Token(j.ID) != j.ID {
		set(headerID, j.ID)
	}
	set(headerUser, j.User)
	set(headerTask, j.Task)
	if j.TaskRetries != 0 {
		set(headerTaskRetries, strconv.Itoa(j.TaskRetries))
	}
	set(headerContentType, j.ContentType)
	set(headerTraceParent, j.TraceParent)
	set(headerDeadline, formatTime(j.Deadline))
	set(headerNotBefore, formatTime(j.NotBefore))
	return h
}

// OpenJob reads a message of the stream of jobs, stored at a time. What is not
// a job comes back with an error and what could be read of it, so that it can
// be buried whole. Headers are read without regard to case.
func OpenJob(kind, token string, m *nats.Msg, stored time.Time) (Envelope, error) {
	e, err := open(kind, token, m)
	e.Replay = lookup(m.Header, headerReplay)
	if err == nil {
		e.bound(stored)
	}
	e.Published = stored
	return e, err
}

// OpenMoved reads a message that a worker or scheduler has moved.
func OpenMoved(kind, token string, m *nats.Msg) (Envelope, error) {
	e, err := open(kind, token, m)
	published, perr := parseTime(headerPublished, lookup(m.Header, headerPublished))
	if err == nil {
		err = perr
	}
	e.Published = published
	e.Due, _ = parseTime(headerDue, lookup(m.Header, headerDue)) // one that is garbage is as none
	if err == nil {
		e.bound(published)
	}
	return e, err
}

// bound gives e the deadline that it lacks, or the longest one instead of one
// that is further away: its header stays as published over every move.
func (e *Envelope) bound(published time.Time) {
	if e.Deadline.IsZero() {
		e.Deadline = published.Add(DefaultDeadline)
	}
	if longest := published.Add(MaxDeadline); e.Deadline.After(longest) {
		e.Deadline = longest
	}
}

func open(kind, token string, m *nats.Msg) (Envelope, error) {
	own, others, badName := publishedHeader(m.Header, len(m.Data) == 0)
	e := Envelope{Token: token, published: own, Generated: own.Get(headerGenerated) != ""}
	get := own.Get
	e.Job = Job{Kind: kind, User: get(headerUser), Task: get(headerTask), Payload: m.Data,
		ContentType: get(headerContentType), TraceParent: get(headerTraceParent), Header: others}
	for name, values := range others {
		e.published = with(e.published, name, values)
	}
	var err error
	if e.ID, err = ParseToken(token); err != nil {
		e.ID = token
		return e, err
	}
	if badName != nil {
		return e, badName
	}
	if id := get(headerID); id != "" && id != e.ID {
		return e, fmt.Errorf("%w: header %s %.80q is not the subject's ID", ErrBadJob, headerID, id)
	}
	if e.Deadline, err = parseTime(headerDeadline, get(headerDeadline)); err != nil {
		return e, err
	}
	if e.NotBefore, err = parseTime(headerNotBefore, get(headerNotBefore)); err != nil {
		return e, err
	}
	if s := get(headerTaskRetries); s != "" {
		if e.TaskRetries, err = strconv.Atoi(s); err != nil {
			return e, fmt.Errorf("%w: header %s %.40q is not a number", ErrBadJob, headerTaskRetries, s)
		}
	}
	if err := checkTaskRetries(&e.Job); err != nil {
		return e, err
	}
	return e, checkTexts(&e.Job)
}

func checkTaskRetries(j *Job) error {
	switch {
	case j.TaskRetries < 0 || j.TaskRetries > MaxTaskRetries:
		return fmt.Errorf("%w: %d retries of a task are not between 0 and %d; there is no unlimited", ErrBadJob, j.TaskRetries, MaxTaskRetries)
	case j.TaskRetries > 0 && j.Task == "":
		return fmt.Errorf("%w: %d retries of a task, and no task is named", ErrBadJob, j.TaskRetries)
	}
	return nil
}

func checkTexts(j *Job) error {
	for _, f := range []struct{ name, value string }{
		{"user", j.User}, {"task", j.Task}, {"content type", j.ContentType}, {"traceparent", j.TraceParent},
	} {
		if why := badText(f.value); why != "" {
			return fmt.Errorf("%w: %s %.80q %s", ErrBadJob, f.name, f.value, why)
		}
	}
	return nil
}

// Moved returns the message that carries e to another subject.
func (e *Envelope) Moved(subject string) *nats.Msg {
	h := nats.Header{}
	for name, values := range e.published {
		h[name] = values
	}
	h.Set(headerPublished, formatTime(e.Published))
	return &nats.Msg{Subject: subject, Header: h, Data: e.Payload}
}

// Parked is Moved for the message that comes back when it is due.
func (e *Envelope) Parked(subject string, due time.Time) *nats.Msg {
	m := e.Moved(subject)
	m.Header.Set(headerDue, formatTime(due))
	return m
}

// publishedHeader returns what the publisher wrote, which is all but what the
// server and the moves add: the headers of a job, each written one way, and the
// others. What could not be moved is left out, with an error: a name that no
// NATS client would publish again, the Status of an empty message, and all of
// them if they are too large together.
func publishedHeader(from nats.Header, empty bool) (own, others nats.Header, err error) {
	for name, values := range from {
		switch usual := usualName(name); {
		case usual != "":
			if v := lookup(from, usual); v != "" {
				own = with(own, usual, []string{v})
			}
		case isReserved(name):
		case !headerName.MatchString(name):
			err = fmt.Errorf("%w: header %.80q is not a name of letters, digits, - and _", ErrBadJob, name)
		case empty && isStatus(name):
			err = errStatus
		default:
			others = with(others, name, values)
		}
	}
	if size := headerSize(own) + headerSize(others); size > maxMoved {
		return nil, nil, fmt.Errorf("%w: headers of %d bytes cannot be moved, the limit is %d", ErrBadJob, size, maxMoved)
	}
	return own, others, err
}

// Bounds of the headers of a job, in bytes. What a publisher takes leaves room for
// a history. What was accepted without one, before there was this limit or past a
// publisher, is a job as long as it can be moved.
const (
	maxHeader    = 32 << 10
	maxMoved     = serverHeader - moveSpace
	serverHeader = 64<<10 - 1 // of any message
	moveSpace    = 4 << 10    // what a move adds, or a letter besides its history
)

func headerSize(h nats.Header) (size int) {
	for name, values := range h {
		for _, v := range values {
			size += len(name) + len(": \r\n") + len(v)
		}
	}
	return size
}

// isStatus reports whether a header is the one by which NATS clients know a word
// of the server: they swallow an empty message that has it. What stands in the
// first line of a header block is read under this name too, if the server has
// left it there.
func isStatus(name string) bool { return strings.EqualFold(name, "Status") }

var errStatus = fmt.Errorf("%w: header Status of an empty message belongs to the NATS protocol", ErrBadJob)

// headerName is what the NATS client publishes.
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// usualName is how a header of a job is written, or empty if name is not one.
func usualName(name string) string {
	for _, usual := range [...]string{headerUser, headerTask, headerTaskRetries, headerID, headerDeadline, headerNotBefore, headerGenerated, headerContentType, headerTraceParent} {
		if strings.EqualFold(usual, name) {
			return usual
		}
	}
	return ""
}

func isReserved(name string) bool {
	return hasPrefix(name, reservedPrefix) || hasPrefix(name, natsPrefix)
}

func hasPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// with sets a header of h, which may be nil: most jobs have none.
func with(h nats.Header, name string, values []string) nats.Header {
	if h == nil {
		h = nats.Header{}
	}
	h[name] = values
	return h
}

// lookup returns the first value of a header, without regard to case. Of
// several spellings the usual one counts, then the first in the alphabet, so
// that every reader reads the same.
func lookup(h nats.Header, name string) string {
	if v := h.Get(name); v != "" {
		return v
	}
	spelling := ""
	for n, values := range h {
		if strings.EqualFold(n, name) && len(values) > 0 && values[0] != "" && (spelling == "" || n < spelling) {
			spelling = n
		}
	}
	return h.Get(spelling)
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func parseTime(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("%w: header %s %.40q is not a time such as 2006-01-02T15:04:05Z", ErrBadJob, name, s)
	}
	return t, nil
}

// ErrorText is the text of a failure as it is stored and shown: one line of at
// most 512 bytes, empty without an error.
func ErrorText(err error) string {
	if err == nil {
		return ""
	}
	return clean(err.Error())
}

// clean makes an error's text fit for one line of a header.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.TrimSpace(s)
	if len(s) > maxError {
		s = strings.ToValidUTF8(s[:maxError], "") + "…"
	}
	return s
}

// MoveID names what a move moves: its address, and when it was stored there. A
// stream that was made again, or lost its end with the power, gives an address
// twice.
func MoveID(address string, stored time.Time) string {
	return address + ":" + strconv.FormatInt(stored.UnixNano(), 36)
}

// Address is where a message lies: the name of its stream and its sequence.
func Address(stream string, seq uint64) string { return stream + ":" + strconv.FormatUint(seq, 10) }
