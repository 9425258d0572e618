package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// FuzzLines reads files of jobs: each line once, whole or as an error, whatever
// the size of the buffer is.
func FuzzLines(f *testing.F) {
	for _, text := range []string{
		`{"kind":"a","id":"1","user":"u","task":"t","task_retries":3,"payload":{"b": 1.50},"deadline":"1h","not_before":"2026-01-02T03:30:00Z","content_type":"x/y"}`,
		"\xef\xbb\xbf{\"kind\":\"a\"}\r\n\r\n \t\n{\"kind\":\"b\"}", // a byte order mark, CRLF, empty lines, no end
		"{\"kind\":\"a\",\"id\":\"\xff\"}\n", `{"kind":"a","id":"\ud800"}`, "{\"kind\":\"\x1b[2J\"}",
		`{"kind":"a","payload":` + strings.Repeat("[", 20_000), strings.Repeat("x", 300) + "\n{}\n", // nested deeply; too long
		`{"kind":"a","ID":"1"}`, `{"kind":"a","id":"1","i\u0064":"2"}`, `{"kind":"a"}{"kind":"b"}`, `{"kind":"a","task_retries":1e99}`,
		`{"kind":"a","deadline":"9999-12-31T23:59:59Z","not_before":"9223372036s"}`, "null\n[]\n1\n\"a\"\n", "", "\n", "\x00",
	} {
		f.Add([]byte(text), uint8(0))
		f.Add([]byte(text), uint8(100))
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text []byte, limit uint8) {
		r := lineReader{in: bufio.NewReaderSize(bytes.NewReader(text), 16), limit: int(limit) + 1}
		read := 0
		for {
			line, size, err := r.next()
			read += size
			if errors.Is(err, io.EOF) {
				break
			}
			if len(line) > r.limit || (err == nil) != (size <= r.limit) {
				t.Fatalf("line %d of %d bytes was read as %d, %v; the limit is %d", r.line, size, len(line), err, r.limit)
			}
		}
		if read != len(text) {
			t.Fatalf("%d of %d bytes were read", read, len(text))
		}
		for _, line := range bytes.Split(text, []byte("\n")) {
			checkLine(t, line, now)
		}
	})
}

// checkLine checks that a line which is taken for a job says exactly that job.
func checkLine(t *testing.T, line []byte, now time.Time) {
	t.Helper()
	job, err := parseLine(line, now)
	if err != nil {
		if text := complaint("line 1", err); strings.ContainsFunc(text, unicode.IsControl) || len(text) > 500 {
			t.Errorf("an error of %d bytes, want a short line: %.600q", len(text), text)
		}
		return
	}
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		t.Fatalf("%q was taken", line)
	}
	for name, got := range map[string]string{"kind": job.Kind, "id": job.ID, "user": job.User, "task": job.Task} {
		if said, ok := fields[name].(string); ok && got != said || !ok && got != "" {
			t.Errorf("%q was taken with the %s %q", line, name, got)
		}
	}
	if !utf8.Valid(job.Payload) || len(job.Payload) > 0 && (!bytes.Contains(line, job.Payload) || !json.Valid(job.Payload)) {
		t.Errorf("%q was taken with the payload %q", line, job.Payload)
	}
}
