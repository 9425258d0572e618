package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// jobLine is a job as a line of a file has it.
type jobLine struct {
	Kind        string          `json:"kind"`
	ID          string          `json:"id"`
	User        string          `json:"user"`
	Task        string          `json:"task"`
	Payload     json.RawMessage `json:"payload"`
	Deadline    string          `json:"deadline"`
	NotBefore   string          `json:"not_before"`
	ContentType string          `json:"content_type"`
}

// parseLine reads one job. Its payload is the bytes that stand in the line.
func parseLine(line []byte, now time.Time) (mulligan.Job, error) {
	var l jobLine
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return mulligan.Job{}, notAJob(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return mulligan.Job{}, errors.New("more than one JSON value on the line")
	}
	job := mulligan.Job{Kind: l.Kind, ID: l.ID, User: l.User, Task: l.Task, Payload: l.Payload, ContentType: l.ContentType}
	if l.Kind == "" {
		return job, errors.New(`no "kind"`)
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

func notAJob(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field == "" {
			return fmt.Errorf("a JSON object is wanted, not %s", wrong.Value)
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
		return bytes.TrimSpace(line), size, nil
	}
}
