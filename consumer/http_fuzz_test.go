package consumer

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// FuzzHTTPAnswer reads the bytes that a target sends back as the transport does.
func FuzzHTTPAnswer(f *testing.F) {
	for _, answer := range []string{
		"200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"200 OK\r\nContent-Length: 9\r\n\r\nshort", // it breaks off
		"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"204 No Content\r\nMulligan-Outcome: changed\r\n\r\n",
		"503 \x1b[2J\r\nRetry-After: 99999999999999999999\r\nMulligan-Error-Type: mailbox_full\r\n\r\n\x1b[31mred\xff",
		"422 x\r\nMulligan-Retry: changed\r\nContent-Length: 1\r\n\r\n1",
		"200 OK\r\nMulligan-Outcome: snooze\r\nRetry-After-Ms: 0.5\r\n\r\n",
		"418 x\r\nMulligan-Outcome: " + strings.Repeat("x", 2000) + "\r\nMulligan-Error-Type: " + strings.Repeat("y", 2000) + "\r\n\r\n" + strings.Repeat("é", 2000),
		"302 Found\r\nLocation: http://h/" + strings.Repeat("a", 3000) + "\u202e\r\n\r\n",
		"401 x\r\nRetry-After: Sun, 01 Mar 2026 12:00:10 GMT\r\n\r\n", "101 x\r\nUpgrade: y\r\n\r\n", "999 x\r\n\r\n", "000 x\r\n\r\n",
	} {
		f.Add([]byte("HTTP/1.1 " + answer))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(sent)), &http.Request{Method: http.MethodPost})
		if err != nil {
			return // the transport says so
		}
		body, err := httpAnswered(t.Context(), "h:1", resp)
		if len(body) > httpBody || err != nil && body != nil {
			t.Fatalf("a result of %d bytes, with %v", len(body), err)
		}
		if err == nil {
			return
		}
		if text := err.Error(); strings.ContainsFunc(text, unicode.IsControl) || len(text) > 1000 {
			t.Errorf("an error of %d bytes, want a short line: %.600q", len(text), text)
		}
		m := mulligan.MeaningOf(err)
		if m.Hint < 0 || m.Hint > httpMaxHint || m.Changed != nil && (len(m.Changed.Payload) == 0 || len(m.Changed.Payload) > mulligan.MaxChanged) {
			t.Errorf("it means a wait of %v and the payload of %+v", m.Hint, m.Changed)
		}
		if name := mulligan.ErrorType(err); len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r > '~' || r <= ' ' }) {
			t.Errorf("the type of the error is %q", name)
		}
	})
}

// FuzzParked parks whatever job there may be, and reads the schedule.
func FuzzParked(f *testing.F) {
	f.Add("email.send", "order 7", "MULLIGAN_JOBS", uint64(17), int64(1767225600))
	f.Add("a", "=", "X", uint64(1<<63), int64(253402300799)) // the last second of year 9999
	f.Add("a", ">.*", "X:Y", uint64(0), int64(-62135596800))
	f.Fuzz(func(t *testing.T, kind, id, stream string, seq uint64, due int64) {
		at := time.Unix(due, 0)
		if mulligan.ValidKindName(kind) != nil || stream == "" || strings.ContainsAny(stream, ".*> \t\r\n\x00/\\:") || at.Year() < 1 || at.Year() > 9999 {
			return
		}
		token := mulligan.Token(id)
		if _, err := mulligan.ParseToken(token); err != nil {
			return
		}
		w := &Worker{}
		d := &delivery{env: mulligan.Envelope{Job: mulligan.Job{Kind: kind, ID: id}, Token: token}, facts: facts{address: address{stream, seq}}}
		s := w.parked(d, "park", at)
		head, origin := mulligan.SplitSubject(w.Topology.AtRoot(), s.msg.Subject)
		k, tok := mulligan.SplitSubject("x", "x."+head)
		if k != kind || tok != token || strings.ContainsAny(origin, ".*> :") || origin != fmt.Sprint(stream, "-", seq) {
			t.Errorf("%s %q of %s has the schedule %q", kind, id, d.address, s.msg.Subject)
		}
		if k, tok := mulligan.SplitSubject(w.Topology.DeferredRoot(), s.msg.Header.Get(jetstream.ScheduleTargetHeader)); k != kind || tok != token {
			t.Errorf("it comes back as %s %q", k, tok)
		}
		when, err := time.Parse(time.RFC3339Nano, strings.TrimPrefix(s.msg.Header.Get(jetstream.ScheduleHeader), "@at "))
		if err != nil || !when.Equal(at) {
			t.Errorf("it comes back at %v, %v; want %v", when, err, at)
		}
	})
}
