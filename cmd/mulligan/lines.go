package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mulligan-queue/mulligan"
)

// jobLine is a job as a line of a file has it.
type jobLine struct {
	Kind, ID            string
	User, Task          string
	TaskRetries         int
	Payload             json.RawMessage
	Deadline, NotBefore string
	ContentType         string
}

// parseLine reads one job. Its payload is the bytes that stand in the line.
func parseLine(line []byte, now time.Time) (mulligan.Job, error) {
	if !utf8.Valid(line) {
		return mulligan.Job{}, errors.New("the line is not UTF-8")
	}
	var l jobLine
	if err := l.read(line); err != nil {
		return mulligan.Job{}, err
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

// read reads the fields one by one, and refuses what encoding/json lets pass: a name
// in other letters, such as "ID", and a field that comes twice.
func (l *jobLine) read(line []byte) error {
	d := json.NewDecoder(bytes.NewReader(line))
	first, err := d.Token()
	switch {
	case err != nil:
		return notJSON(err)
	case first != json.Delim('{'):
		return fmt.Errorf("a JSON object is wanted, not %.40q", line)
	}
	fields := l.fields()
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		switch {
		case err != nil:
			return fmt.Errorf("where a field begins: %w", notJSON(err))
		case !ok:
			return fmt.Errorf("a field begins with its name, not with %v", t)
		}
		i := slices.IndexFunc(fields, func(f lineField) bool { return f.name == name })
		switch {
		case i < 0:
			return unknownField(fields, name)
		case fields[i].seen:
			return fmt.Errorf("the field %q comes twice", name)
		}
		fields[i].seen = true
		if err := d.Decode(fields[i].to); err != nil {
			return notField(fields[i], err)
		}
	}
	if _, err := d.Token(); err != nil { // its end
		return notJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value on the line")
	}
	return nil
}

// A lineField is a field of a line, by its name, and where it goes.
type lineField struct {
	name string
	to   any
	seen bool
}

func (l *jobLine) fields() []lineField {
	return []lineField{
		{name: "kind", to: &l.Kind}, {name: "id", to: &l.ID}, {name: "user", to: &l.User}, {name: "task", to: &l.Task},
		{name: "task_retries", to: &l.TaskRetries}, {name: "payload", to: &l.Payload},
		{name: "deadline", to: &l.Deadline}, {name: "not_before", to: &l.NotBefore}, {name: "content_type", to: &l.ContentType},
	}
}

func unknownField(fields []lineField, name string) error {
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			return fmt.Errorf("unknown field %.80q; write it %q", name, f.name)
		}
	}
	return fmt.Errorf("unknown field %.80q", name)
}

// notField says why a field cannot be read into what it is for.
func notField(f lineField, err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return notJSON(err)
	}
	want := "text"
	if _, whole := f.to.(*int); whole {
		want = "a whole number"
	}
	return fmt.Errorf("%q is a %s; %s is wanted", f.name, wrong.Value, want)
}

func notJSON(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
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
