package mulligan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
)

// oneLine checks an error that ends in a log, a header or on a terminal.
func oneLine(t *testing.T, err error) {
	t.Helper()
	const longest = 500
	if text := err.Error(); strings.ContainsFunc(text, unicode.IsControl) || len(text) > longest {
		t.Errorf("an error of %d bytes, want one line of at most %d: %.600q", len(text), longest, text)
	}
}

// sent is a header as it arrives from the wire, after the NATS client has
// written and another has read it.
func sent(t *testing.T, h nats.Header) nats.Header {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("NATS/1.0\r\n")
	if err := http.Header(h).Write(&b); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\r\n")
	got, err := nats.DecodeHeadersMsg(b.Bytes())
	if err != nil {
		t.Fatalf("%q is no header block: %v", b.Bytes(), err)
	}
	return got
}

// FuzzHeaderBlock reads a job, a retry, a spent job and a letter out of the
// header block of a stranger, moves each, and reads it again.
func FuzzHeaderBlock(f *testing.F) {
	const first = "NATS/1.0\r\n"
	const letter = first + "Mulligan-Kind: a.b\r\nMulligan-Token: 1\r\nMulligan-Reason: expired\r\nMulligan-Attempts: 2\r\n"
	for _, block := range []string{
		first + "Mulligan-User: ada\r\nX-Team: a\r\nX-Team: b\r\n\r\n",
		first + "mulligan-user: ada\r\nMULLIGAN-USER: bob\r\n\r\n", // which of two spellings counts
		first + "Mulligan-User: \x1b[2J\r\n\r\n",                   // what would move a cursor
		first + "Mulligan-User: " + strings.Repeat("u", 256) + "\r\n\r\n",
		first + "Mulligan-Deadline: 9999-12-31T23:59:59.999999999-23:59\r\nMulligan-Not-Before: 9999-12-31T23:59:59Z\r\n\r\n",
		first + "Mulligan-Task: t\r\nMulligan-Task-Retries: 99999999999999999999\r\n\r\n",
		first + strings.Repeat("X-A: 1\r\n", 1000) + "\r\n",
		first + "Nats-Rollup: all\r\nNats-Schedule: @at 2026-01-01T00:00:00Z\r\nTraceparent: 00-zz\r\n\r\n",
		first + "Status: 404\r\n\r\n", "NATS/1.0 503 No Responders\r\n\r\n",
		letter + "Mulligan-History: [{\"number\":1,\"delay_ns\":1}]\r\nMulligan-Buried-At: 2026-01-01T00:00:00Z\r\n\r\n",
		letter + "Mulligan-History: " + strings.Repeat("[", 20_000) + "\r\n\r\n", // nested deeply
		letter + "Mulligan-Attempts: " + strings.Repeat("9", 2000) + "\r\n\r\n",
		first + "Mulligan-Reason: malformed\r\nMulligan-Kind: a\r\nMulligan-Attempts: 0\r\nMulligan-Token: ~x\r\n\r\n",
		"nonsense\r\n\r\n", "",
	} {
		f.Add([]byte(block), "1", []byte("p"))
		f.Add([]byte(block), "=YSBi", []byte(nil))
	}
	f.Fuzz(func(t *testing.T, block []byte, token string, data []byte) {
		h, err := nats.DecodeHeadersMsg(block)
		if err != nil {
			h = nil // so does getMsg
		}
		m := &nats.Msg{Header: h, Data: data}
		readJob(t, token, m)
		readSpent(t, token, m)
		readLetter(t, m)
	})
}

func readJob(t *testing.T, token string, m *nats.Msg) {
	t.Helper()
	e, err := mulligan.OpenJob("a.b", token, m, stored())
	if err != nil {
		oneLine(t, err)
		return
	}
	again, err := mulligan.OpenMoved("a.b", token, &nats.Msg{Header: sent(t, e.Moved("s").Header), Data: m.Data})
	if err != nil || again.ID != e.ID || again.User != e.User || again.Task != e.Task || again.TaskRetries != e.TaskRetries || again.TraceParent != e.TraceParent ||
		!again.Deadline.Equal(e.Deadline) || !again.NotBefore.Equal(e.NotBefore) || !again.Published.Equal(stored()) || !bytes.Equal(again.Payload, m.Data) {
		t.Errorf("moved it is %+v, %v; want %+v", again, err, e)
	}
}

func readSpent(t *testing.T, token string, m *nats.Msg) {
	t.Helper()
	e, move := mulligan.OpenSpent("a.b", token, m)
	if !move.Reason.Valid() || !bytes.Equal(e.Payload, m.Data) {
		t.Errorf("spent with the reason %q and the payload %q", move.Reason, e.Payload)
	}
	if _, again := mulligan.OpenSpent("a.b", token, e.SpentMessage("s", move)); again.Reason != move.Reason {
		t.Errorf("handed on it is spent as %s, want %s", again.Reason, move.Reason)
	}
}

func readLetter(t *testing.T, m *nats.Msg) {
	t.Helper()
	l, err := mulligan.OpenLetter(m, 7)
	if err != nil {
		oneLine(t, err)
		return
	}
	once := l.Message("s")
	again, err := mulligan.OpenLetter(once, 7)
	if err != nil || again.Reason != l.Reason || again.Attempts != l.Attempts || again.Kind != l.Kind || again.Token != l.Token || !bytes.Equal(again.Payload, m.Data) {
		t.Fatalf("written again it is %+v, %v; want %+v", again, err, l)
	}
	if twice := again.Message("s"); fmt.Sprint(twice.Header) != fmt.Sprint(once.Header) {
		t.Errorf("it changes whenever it is written: %v, then %v", once.Header, twice.Header)
	}
	if size := len(once.Header.Get("Mulligan-History")) + len(once.Header.Get("Mulligan-Error")); size > 17<<10 {
		t.Errorf("history and error have %d bytes", size)
	}
}

// FuzzSubject makes subjects and keys of kinds and IDs, and reads them again.
func FuzzSubject(f *testing.F) {
	for _, id := range []string{"1", "order 7", "a.b", "*", ">", "=", "é", strings.Repeat("x", 255), "a\x00b", " a", ""} {
		f.Add("email.send", id)
		f.Add(id, "1")
	}
	f.Fuzz(func(t *testing.T, kind, id string) {
		if err := mulligan.ValidKindName(kind); err != nil {
			oneLine(t, err)
			return
		}
		token := mulligan.Token(id)
		back, err := mulligan.ParseToken(token)
		if err != nil {
			oneLine(t, err)
			token = mulligan.SafeToken(token)
		} else if back != id {
			t.Fatalf("%q has the token %q, which is of %q", id, token, back)
		}
		subject := mulligan.Subject("m.jobs", kind, token)
		if strings.ContainsAny(subject, " \t\r\n*>\x00") || strings.Contains(subject, "..") || strings.HasSuffix(subject, ".") || len(subject) > 500 {
			t.Errorf("%s %q has the subject %q", kind, id, subject)
		}
		if k, tok := mulligan.SplitSubject("m.jobs", subject); k != kind || tok != token {
			t.Errorf("%q is of %q and %q, want %q and %q", subject, k, tok, kind, token)
		}
	})
}

// FuzzKind reads what a program of any age may have declared.
func FuzzKind(f *testing.F) {
	for _, declared := range []string{
		`{"name":"a","effect":"keyed","policy":{"attempts":4,"total":"10s"},"downstream":"d","key_ttl":"24h0m0s","max_result":65536}`,
		`{"name":"a","effect":"twice"}`, `{"name":"a","effect":"pure","policy":{"total":"9999999h"}}`, `{"name":"a","key_ttl":"` + strings.Repeat("1", 1000) + `"}`,
		`{"name":"\u001b[2J","effect":"pure"}`, `{"name":"a","effect":"pure","news":[{}]}`, `null`, `[]`, ``, strings.Repeat("[", 20_000),
	} {
		f.Add([]byte(declared))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var k mulligan.Kind
		if err := json.Unmarshal(b, &k); err != nil {
			oneLine(t, err)
			return
		}
		n, err := k.Normal()
		if err != nil {
			oneLine(t, err)
			return
		}
		text, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var again mulligan.Kind
		if err := json.Unmarshal(text, &again); err != nil || again != n || again.Fingerprint() != k.Fingerprint() {
			t.Errorf("%s reads as %+v, %v; want %+v", text, again, err, n)
		}
	})
}
