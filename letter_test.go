package mulligan_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
)

func letter(t *testing.T, h nats.Header, payload []byte) mulligan.Letter {
	t.Helper()
	e, err := mulligan.OpenJob("email.send", mulligan.Token("order 7"), &nats.Msg{Header: h, Data: payload}, stored())
	if err != nil {
		t.Fatal(err)
	}
	return mulligan.Letter{Envelope: e, Reason: mulligan.AttemptsExhausted, ErrorType: "http_503", Error: "busy", Attempts: 4, BuriedAt: stored().Add(time.Minute),
		History: []mulligan.Attempt{{Number: 1, Run: "r1", At: stored(), Took: time.Second, ErrorType: "http_503", Error: "busy", Verb: mulligan.Nak, Delay: time.Second}}}
}

func TestALetterSurvivesItsStream(t *testing.T) {
	body := bytes.Repeat([]byte{0, '\r', '\n', 255}, 1000)
	l := letter(t, nats.Header{"Mulligan-User": {"u"}, "X-Team": {"a", "b"}}, body)
	m := l.Message("dead")
	got, err := mulligan.OpenLetter(m, 17)
	if err != nil {
		t.Fatal(err)
	}
	l.Seq = 17
	if !reflect.DeepEqual(got, l) {
		t.Errorf("got %+v, want %+v", got, l)
	}
	if m.Subject != "dead" || !bytes.Equal(m.Data, body) || m.Header.Get("X-Team") != "a" {
		t.Errorf("stored as %+v, want body and headers as published", m)
	}
}

func TestALettersErrorIsOneLine(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"line ends become spaces", "a\r\nMulligan-Reason: crashed\nb", "a  Mulligan-Reason: crashed b"},
		{"control characters become spaces", "a\x00b\x1b[31mc\u0085d", "a b [31mc d"},
		{"text that is not UTF-8 is marked", "a\xffb", "a?b"},
		{"white space at the ends goes", "\n a \n", "a"},
		{"no text is no text", "", ""},
		{"a long text is cut", strings.Repeat("x", 600), strings.Repeat("x", 512) + "…"},
		{"a long text is not cut within a letter", "x" + strings.Repeat("é", 600), "x" + strings.Repeat("é", 255) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := letter(t, nil, nil)
			l.Error = tt.text
			got, err := mulligan.OpenLetter(l.Message("dead"), 1)
			if err != nil || got.Error != tt.want || got.Reason != mulligan.AttemptsExhausted {
				t.Fatalf("error %q reads as %q with reason %s, %v; want %q", tt.text, got.Error, got.Reason, err, tt.want)
			}
			again, err := mulligan.OpenLetter(got.Message("dead"), 1)
			if err != nil || again.Error != tt.want {
				t.Errorf("written again it reads as %q, %v; want %q", again.Error, err, tt.want)
			}
		})
	}
}

func TestALettersHistoryIsBounded(t *testing.T) {
	l := letter(t, nil, nil)
	for i := range 200 {
		l.History = append(l.History, mulligan.Attempt{Number: i + 2, Run: fmt.Sprint(i), Error: strings.Repeat("x\n", 250)})
	}
	m := l.Message("dead")
	size := 0
	for name, values := range m.Header {
		size += len(name) + len(strings.Join(values, ""))
	}
	if size > 24<<10 {
		t.Errorf("the headers take %d bytes, too many for the room that moves have", size)
	}
	got, err := mulligan.OpenLetter(m, 1)
	if err != nil {
		t.Fatal(err)
	}
	n := len(got.History)
	if n == 0 || n >= len(l.History) || got.History[n-1].Number != 201 || got.History[0].Number != 202-n {
		t.Errorf("kept %d attempts, the newest %+v; want the newest ones in order", n, got.History[n-1])
	}
}

func TestOpenLetterRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, header, value string
	}{
		{"a letter without a reason", "Mulligan-Reason", ""},
		{"a letter with an unknown reason", "Mulligan-Reason", "bored"},
		{"a letter without a kind", "Mulligan-Kind", ""},
		{"a letter without a token", "Mulligan-Token", ""},
		{"attempts that are no number", "Mulligan-Attempts", "four"},
		{"a burial at no time", "Mulligan-Buried-At", "then"},
		{"a history that is none", "Mulligan-History", "[{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := letter(t, nil, nil)
			m := l.Message("dead")
			m.Header.Set(tt.header, tt.value)
			if got, err := mulligan.OpenLetter(m, 17); err == nil || !strings.Contains(err.Error(), "17") {
				t.Errorf("got %+v, %v; want an error that names the letter", got, err)
			}
		})
	}
}

func TestAMalformedJobsLetterOpens(t *testing.T) {
	m := &nats.Msg{Header: nats.Header{"Mulligan-Deadline": {"tomorrow"}}, Data: []byte("?")}
	e, err := mulligan.OpenJob("email.send", "a+b", m, stored())
	if err == nil {
		t.Fatal("the job is well formed")
	}
	l := mulligan.Letter{Envelope: e, Reason: mulligan.Malformed, Error: err.Error(), BuriedAt: stored()}
	got, err := mulligan.OpenLetter(l.Message("dead"), 1)
	if err != nil || got.Token != "a+b" || got.ID != "a+b" || string(got.Payload) != "?" || got.Error != l.Error {
		t.Errorf("got %+v, %v; want it whole", got, err)
	}
}

func TestReplayed(t *testing.T) {
	now := stored().Add(10 * 24 * time.Hour)
	for _, tt := range []struct {
		name, deadline string
		want           time.Time
	}{
		{"a job with a day gets another day", "", now.Add(24 * time.Hour)},
		{"a job with an hour gets another hour", stored().Add(time.Hour).Format(time.RFC3339Nano), now.Add(time.Hour)},
		{"a job with the longest deadline gets it again", "2999-01-01T00:00:00Z", now.Add(mulligan.MaxDeadline)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := nats.Header{"X-Team": {"a", "b"}, "Mulligan-User": {"u"}, "Mulligan-Id": {"order 7"}}
			if tt.deadline != "" {
				header.Set("Mulligan-Deadline", tt.deadline)
			}
			body := []byte{0, 255, '\n'}
			dead := letter(t, header, body)
			l, err := mulligan.OpenLetter(dead.Message("dead"), 17)
			if err != nil {
				t.Fatal(err)
			}
			m := l.Replayed("jobs", "DEAD:17", now)
			if m.Subject != "jobs" || !bytes.Equal(m.Data, body) {
				t.Errorf("published again as %+v, want the payload bit for bit", m)
			}
			got, err := mulligan.OpenJob("email.send", l.Token, m, now)
			if err != nil {
				t.Fatal(err)
			}
			if got.Key() != dead.Key() || got.Fingerprint() != dead.Fingerprint() || got.User != "u" || !reflect.DeepEqual(got.Header, dead.Header) {
				t.Errorf("published again it is %+v, want key, user and headers of %+v", got, dead)
			}
			if got.Replay != "DEAD:17" || !got.Deadline.Equal(tt.want) {
				t.Errorf("replay of %q with deadline %v; want DEAD:17, %v", got.Replay, got.Deadline, tt.want)
			}
			for name := range m.Header {
				if strings.HasPrefix(name, "Mulligan-") && !strings.Contains(" Mulligan-User Mulligan-Id Mulligan-Deadline Mulligan-Replay ", " "+name+" ") {
					t.Errorf("header %s of the letter is published again", name)
				}
			}
		})
	}
}
