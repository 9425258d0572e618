package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func TestALineIsAJob(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name, line string
		want       mulligan.Job
		wrong      string
	}{
		{name: "all fields", line: `{"kind":"a","id":"1","user":"u","task":"t","payload":{"b": 1.50},"deadline":"1h","not_before":"2026-01-02T03:30:00Z","content_type":"x/y"}`,
			want: mulligan.Job{Kind: "a", ID: "1", User: "u", Task: "t", Payload: []byte(`{"b": 1.50}`), ContentType: "x/y",
				Deadline: now.Add(time.Hour), NotBefore: time.Date(2026, 1, 2, 3, 30, 0, 0, time.UTC)}},
		{name: "no payload", line: `{"kind":"a"}`, want: mulligan.Job{Kind: "a"}},
		{name: "a payload of null", line: `{"kind":"a","payload":null}`, want: mulligan.Job{Kind: "a", Payload: []byte("null"), ContentType: contentJSON}},
		{name: "a payload of text", line: `{"kind":"a","payload":"x\u0000"}`, want: mulligan.Job{Kind: "a", Payload: []byte(`"x\u0000"`), ContentType: contentJSON}},
		{name: "an unknown field", line: `{"kind":"a","wat":1}`, wrong: `unknown field "wat"`},
		{name: "no kind", line: `{"payload":1}`, wrong: `no "kind"`},
		{name: "a number for an ID", line: `{"kind":"a","id":1}`, wrong: `"id" is a number`},
		{name: "an array", line: `[1]`, wrong: "object is wanted"},
		{name: "half a line", line: `{"kind":`, wrong: "ends too early"},
		{name: "no JSON", line: `kind=a`, wrong: "invalid character"},
		{name: "two values", line: `{"kind":"a"} {"kind":"b"}`, wrong: "more than one"},
		{name: "a byte order mark inside", line: "\xef\xbb\xbf" + `{"kind":"a"}`, wrong: "invalid character"},
		{name: "a name in capitals", line: `{"kind":"a","ID":"1"}`, wrong: `unknown field "ID"; write it "id"`},
		{name: "a name in other letters that count as the same", line: `{"\u212aind":"a"}`, wrong: `write it "kind"`},
		{name: "a field that comes twice", line: `{"kind":"a","id":"1","id":"2"}`, wrong: `"id" comes twice`},
		{name: "a field that comes twice, once escaped", line: `{"kind":"a","id":"1","i\u0064":"2"}`, wrong: `"id" comes twice`},
		{name: "a payload has what fields it likes", line: `{"kind":"a","payload":{"ID":1,"id":2,"id":3}}`,
			want: mulligan.Job{Kind: "a", Payload: []byte(`{"ID":1,"id":2,"id":3}`), ContentType: contentJSON}},
		{name: "an ID that is not UTF-8", line: "{\"kind\":\"a\",\"id\":\"\xff\"}", wrong: "the line is not UTF-8"},
		{name: "half a surrogate pair", line: `{"kind":"a","id":"\ud800"}`, wrong: "the character U+FFFD"},
		{name: "a payload that is nested deeply", line: `{"kind":"a","payload":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, wrong: "exceeded max depth"},
		{name: "a bad deadline", line: `{"kind":"a","deadline":"soon"}`, wrong: "deadline"},
		{name: "a bad not_before", line: `{"kind":"a","not_before":"-1s"}`, wrong: "not_before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseLine([]byte(c.line), now)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("%s gave %v, want an error with %q", c.line, err, c.wrong)
				}
				return
			}
			if err != nil || string(got.Payload) != string(c.want.Payload) || got.Kind != c.want.Kind || got.ID != c.want.ID || got.User != c.want.User ||
				got.Task != c.want.Task || got.ContentType != c.want.ContentType || !got.Deadline.Equal(c.want.Deadline) || !got.NotBefore.Equal(c.want.NotBefore) {
				t.Errorf("%s\ngot  %+v, %v\nwant %+v", c.line, got, err, c.want)
			}
		})
	}
}

func TestLinesMayBeLongButNotTooLong(t *testing.T) {
	in := strings.Repeat("a", 200) + "\r\n\n" + strings.Repeat("b", 201) + "\nlast"
	r := lineReader{in: bufio.NewReaderSize(strings.NewReader(in), 16), limit: 202}
	for i, want := range []struct {
		length int
		err    error
	}{{200, nil}, {0, nil}, {201, nil}, {4, nil}, {0, io.EOF}} {
		line, _, err := r.next()
		if len(line) != want.length || !errors.Is(err, want.err) {
			t.Errorf("line %d: %d bytes, %v; want %d, %v", i+1, len(line), err, want.length, want.err)
		}
	}
	r = lineReader{in: bufio.NewReaderSize(strings.NewReader(in), 16), limit: 100}
	if _, _, err := r.next(); !errors.Is(err, errLineTooLong) {
		t.Errorf("a line over the limit gave %v", err)
	}
	if line, _, err := r.next(); len(line) != 0 || err != nil || r.line != 2 {
		t.Errorf("the line after it is %q, %v, number %d", line, err, r.line)
	}
}

func TestAByteOrderMarkIsIgnoredAtTheStartOnly(t *testing.T) {
	r := lineReader{in: bufio.NewReader(strings.NewReader("\xef\xbb\xbf{}\n\xef\xbb\xbf{}")), limit: 100}
	for _, want := range []string{"{}", "\xef\xbb\xbf{}"} {
		if line, _, err := r.next(); string(line) != want || err != nil {
			t.Errorf("line %d is %q, %v; want %q", r.line, line, err, want)
		}
	}
}

func TestOneJobIsPublished(t *testing.T) {
	e, at := provisionedServer(t)
	c := call(t, `{"to": "ada"}`, at("publish", "email.send", "-", "--id", "a", "--user", "u", "--task", "t", "--json")...)
	first := decoded[map[string]any](t, c)
	if c.code != exitDone || first["kind"] != "email.send" || first["id"] != "a" || first["seq"] != 1.0 || first["duplicate"] != false || first["error"] != "" {
		t.Errorf("exit %d, %v", c.code, first)
	}
	s, err := e.JS.Stream(t.Context(), mulligan.Topology{}.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Data) != `{"to": "ada"}` || m.Header.Get("Content-Type") != contentJSON || m.Header.Get("Mulligan-User") != "u" {
		t.Errorf("stored %q with %v", m.Data, m.Header)
	}
	again := decoded[publishedJob](t, call(t, "", at("publish", "email.send", `{"to": "ada"}`, "--id", "a", "--json")...))
	if !again.Duplicate || again.Seq != 1 {
		t.Errorf("published again: %+v, want a duplicate of 1", again)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a keyed job without an ID", []string{"publish", "email.send"}, exitUsage, "needs an ID"},
		{"a start after the deadline", []string{"publish", "llm.complete", "--not-before", "30h"}, exitUsage, "not-before"},
		{"a deadline that is too far away", []string{"publish", "llm.complete", "--deadline", "2000h"}, exitUsage, "30 days"},
		{"an unknown kind", []string{"publish", "fax.send"}, exitFailed, "there is: email.send, llm.complete"},
		{"another payload under the key", []string{"publish", "email.send", "x", "--id", "a"}, exitFailed, "key conflict"},
	} {
		got := call(t, "", at(append(c.args, "--json")...)...)
		if v := decoded[publishedJob](t, got); got.code != c.code || !strings.Contains(got.err, c.want) || v.Error == "" || v.Seq != 0 {
			t.Errorf("%s: exit %d, %q, %+v; want exit %d and %q", c.name, got.code, got.err, v, c.code, c.want)
		}
	}
	st := decoded[map[string]any](t, call(t, "", at("job", "email.send", "a", "--json")...))
	if st["state"] != mulligan.StatusQueued || st["attempts"] != 0.0 {
		t.Errorf("the job is %v, want it queued", st)
	}
}

func TestAFileWithBadLinesPublishesTheGoodOnes(t *testing.T) {
	e, at := provisionedServer(t)
	var in strings.Builder
	const good = 1200 // more than a batch
	for range good {
		in.WriteString(`{"kind":"llm.complete","payload":{"prompt":"x"}}` + "\n")
	}
	in.WriteString(`{"kind":"email.send","payload":1}` + "\n") // no ID
	in.WriteString("not JSON\n\n")
	in.WriteString(`{"kind":"email.send","id":"big","payload":"` + strings.Repeat("x", 300_000) + `"}`)
	c := call(t, in.String(), at("publish", "--file", "-")...)
	if c.code != exitFailed || !strings.Contains(c.out, "published 1201, duplicates 0, done before 0, dead or spent 0, bad lines 2") {
		t.Errorf("exit %d, %q", c.code, c.out)
	}
	lines := strings.Split(strings.TrimSpace(c.err), "\n")
	if len(lines) != 3 || !strings.HasPrefix(c.err, "line 1201: ") {
		t.Errorf("standard error is %q, want the two bad lines by number and a last word", c.err)
	}
	for _, want := range []string{"line 1201: no idempotency key", "line 1202: invalid character", "lines not published: 2"} {
		if !strings.Contains(c.err, want) {
			t.Errorf("standard error %q does not say %q", c.err, want)
		}
	}
	s, err := e.JS.Stream(t.Context(), mulligan.Topology{}.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != good+1 {
		t.Errorf("%d jobs are stored, want %d", n, good+1)
	}
}

func TestAFileInJSONHasOneObjectAJob(t *testing.T) {
	_, at := provisionedServer(t)
	path := write(t, "jobs.jsonl", `{"kind":"email.send","id":"a","payload":1}`+"\n"+`{"kind":"fax.send"}`+"\n"+`{"kind":"email.send","id":"a","payload":1}`+"\n")
	c := call(t, "", at("publish", "--file", path, "--json")...)
	var got []publishedJob
	for line := range strings.Lines(c.out) {
		var v publishedJob
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		got = append(got, v)
	}
	if c.code != exitFailed || len(got) != 3 || got[0].Line != 1 || got[0].Duplicate == got[2].Duplicate || got[1].Error == "" || got[1].Line != 2 {
		t.Errorf("exit %d, %+v; want three lines, one a duplicate, one an error", c.code, got)
	}
}

// What a line of a file costs before it is published.
func BenchmarkALine(b *testing.B) {
	line := []byte(`{"kind":"llm.complete","id":"job-1","payload":"` + strings.Repeat("x", 254) + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseLine(line, time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
}
