package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mulligan-queue/mulligan"
)

// jobLine is a job as a line of a file has it.
type jobLine struct {
	Kind        string          `json:"kind"`
	ID          string          `json:"id"`
	User        string          `json:"user"`
	Task        string          `json:"task"`
	TaskRetries int             `json:"task_retries"`
	Payload     json.RawMessage `json:"payload"`
	Deadline    string          `json:"deadline"`
	NotBefore   string          `json:"not_before"`
	ContentType string          `json:"content_type"`
}

// parseLine reads one job. Its payload is the bytes that stand in the line.
func parseLine(line []byte, now time.Time) (mulligan.Job, error) {
	if !utf8.Valid(line) {
		return mulligan.Job{}, errors.New("the line is not UTF-8")
	}
	if err := checkFields(line); err != nil {
		return mulligan.Job{}, err
	}
	var l jobLine
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return mulligan.Job{}, notAJob(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return mulligan.Job{}, errors.New("more than one JSON value on the line")
	}
	job := mulligan.Job{Kind: l.Kind, ID: l.ID, User: l.User, Task: l.Task, TaskRetries: l.TaskRetries, Payload: l.Payload, ContentType: l.ContentType}
	if l.Kind == "" {
		return job, errors.New(`no "kind"`)
	}
	// Half a surrogate pair, such as \ud800, reads as this character, and two IDs
	// would be one.
	if strings.ContainsRune(l.Kind+l.ID+l.User+l.Task+l.ContentType, utf8.RuneError) {
		return job, errors.New("a text has the character U+FFFD, which stands for one that was lost")
	}
	if job.ContentType == "" && len(l.Payload) > 0 {
		job.ContentType = contentJSON
	}
	var err error
	if job.Deadline, err = when(l.Deadline, now); err != nil {
		return job, fmt.Errorf("deadline %w", err)
	}
	if job.NotBefore, err = when(l.NotBefore, now); err != nil {
		return job, fmt.Errorf("not_before %w", err)
	}
	return job, nil
}

// checkFields refuses what encoding/json lets pass: a name in other letters,
// such as "ID", and a field that comes twice. What is not an object is left to
// the decoder, which says so.
func checkFields(line []byte) error {
	d := json.NewDecoder(bytes.NewReader(line))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil
		}
		known := slices.Contains(lineFields(), name)
		as := slices.IndexFunc(lineFields(), func(f string) bool { return strings.EqualFold(f, name) })
		switch {
		case !known && as >= 0:
			return fmt.Errorf("unknown field %.80q; write it %q", name, lineFields()[as])
		case !known:
			return fmt.Errorf("unknown field %.80q", name)
		case seen[name]:
			return fmt.Errorf("the field %q comes twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return nil
		}
	}
	return nil
}

func lineFields() []string {
	return []string{"kind", "id", "user", "task", "task_retries", "payload", "deadline", "not_before", "content_type"}
}

func notAJob(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field == "" {
			return fmt.Errorf("a JSON object is wanted, not %s", wrong.Value)
		}
		if wrong.Type.Kind() == reflect.Int {
			return fmt.Errorf("%q is a %s; a whole number is wanted", wrong.Field, wrong.Value)
		}
		return fmt.Errorf("%q is a %s; text is wanted", wrong.Field, wrong.Value)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON ends too early")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// lineReader reads lines of any length, and keeps those up to a limit.
type lineReader struct {
	in    *bufio.Reader
	limit int // in bytes
	line  int // number of the line read last
}

var errLineTooLong = errors.New("the line is too long")

// byteOrderMark is what some editors write before a text in UTF-8.
const byteOrderMark = "\xef\xbb\xbf"

// next returns the next line, or errLineTooLong for one that was skipped, and
// how many bytes it took. It ends with io.EOF.
func (r *lineReader) next() (line []byte, size int, err error) {
	r.line++
	for {
		part, err := r.in.ReadSlice('\n')
		size += len(part)
		if size <= r.limit {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && size > 0, err == nil:
		default:
			return nil, size, err
		}
		if size > r.limit {
			return nil, size, fmt.Errorf("%w: %d bytes, the limit is %d", errLineTooLong, size, r.limit)
		}
		if r.line == 1 {
			line = bytes.TrimPrefix(line, []byte(byteOrderMark))
		}
		return bytes.TrimSpace(line), size, nil
	}
}
