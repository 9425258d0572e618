package mulligan_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
)

// stored is when the jobs of these tests were stored().
func stored() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 123, time.UTC) }

func TestOpenJob(t *testing.T) {
	later := stored().Add(time.Hour)
	for _, tt := range []struct {
		name   string
		header nats.Header
		want   mulligan.Job
	}{
		{"a job without headers has a day", nil, mulligan.Job{Deadline: stored().Add(24 * time.Hour)}},
		{"a job says its user and task", nats.Header{"Mulligan-User": {"u"}, "Mulligan-Task": {"t"}}, mulligan.Job{User: "u", Task: "t", Deadline: stored().Add(24 * time.Hour)}},
		{"headers are read without regard to case", nats.Header{"mulligan-USER": {"u"}, "MULLIGAN-TASK": {"t"}, "content-type": {"text/plain"}, "Traceparent": {"00-1"}},
			mulligan.Job{User: "u", Task: "t", ContentType: "text/plain", TraceParent: "00-1", Deadline: stored().Add(24 * time.Hour)}},
		{"the usual spelling counts before others", nats.Header{"mulligan-user": {"b"}, "MULLIGAN-USER": {"a"}, "Mulligan-User": {"c"}}, mulligan.Job{User: "c", Deadline: stored().Add(24 * time.Hour)}},
		{"of unusual spellings the first in the alphabet counts", nats.Header{"mulligan-user": {"b"}, "MULLIGAN-USER": {"a"}}, mulligan.Job{User: "a", Deadline: stored().Add(24 * time.Hour)}},
		{"a job says its times", nats.Header{"Mulligan-Deadline": {"2026-03-01T13:00:00.000000123Z"}, "Mulligan-Not-Before": {"2026-03-01T13:30:00.000000123+01:00"}},
			mulligan.Job{Deadline: later, NotBefore: stored().Add(30 * time.Minute)}},
		{"a deadline that is too far away is cut", nats.Header{"Mulligan-Deadline": {"2999-01-01T00:00:00Z"}}, mulligan.Job{Deadline: stored().Add(mulligan.MaxDeadline)}},
		{"the ID may be repeated for people", nats.Header{"Mulligan-Id": {"a b"}}, mulligan.Job{Deadline: stored().Add(24 * time.Hour)}},
		{"what only workers write is dropped", nats.Header{"Mulligan-Published": {"2020-01-01T00:00:00Z"}, "mulligan-attempts": {"3"}, "Mulligan-Reason": {"bored"}, "Nats-Msg-Id": {"x"}, "nats-rollup": {"all"}},
			mulligan.Job{Deadline: stored().Add(24 * time.Hour)}},
		{"other headers come along", nats.Header{"X-Team": {"a", "b"}}, mulligan.Job{Header: nats.Header{"X-Team": {"a", "b"}}, Deadline: stored().Add(24 * time.Hour)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &nats.Msg{Header: tt.header, Data: []byte("payload")}
			got, err := mulligan.OpenJob("a.b", mulligan.Token("a b"), m, stored())
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			want.Kind, want.ID, want.Payload = "a.b", "a b", []byte("payload")
			got.Deadline, got.NotBefore = got.Deadline.UTC(), got.NotBefore.UTC()
			if !reflect.DeepEqual(got.Job, want) {
				t.Errorf("headers %v give %+v, want %+v", tt.header, got.Job, want)
			}
			if !got.Published.Equal(stored()) || got.Replay != "" {
				t.Errorf("published %v, replay %q; want %v and none", got.Published, got.Replay, stored())
			}
		})
	}
}

func TestOpenJobRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, token string
		header      nats.Header
		want        error
	}{
		{"a token that is none", "a+b", nil, mulligan.ErrBadID},
		{"an empty token", "", nil, mulligan.ErrBadID},
		{"another ID than the subject's", "1", nats.Header{"Mulligan-Id": {"2"}}, mulligan.ErrBadJob},
		{"another ID than the encoded one", mulligan.Token("a b"), nats.Header{"Mulligan-Id": {"a c"}}, mulligan.ErrBadJob},
		{"a deadline that is no time", "1", nats.Header{"Mulligan-Deadline": {"tomorrow"}}, mulligan.ErrBadJob},
		{"a not-before that is no time", "1", nats.Header{"Mulligan-Not-Before": {"1700000000"}}, mulligan.ErrBadJob},
		{"a user over 255 bytes", "1", nats.Header{"Mulligan-User": {strings.Repeat("u", 256)}}, mulligan.ErrBadJob},
		{"a user that is not UTF-8", "1", nats.Header{"Mulligan-User": {"\xff"}}, mulligan.ErrBadJob},
		{"a task with a control character", "1", nats.Header{"Mulligan-Task": {"a\x00b"}}, mulligan.ErrBadJob},
		{"a header name that could not be published again", "1", nats.Header{"X Team": {"a"}}, mulligan.ErrBadJob},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := mulligan.OpenJob("a.b", tt.token, &nats.Msg{Header: tt.header, Data: []byte("payload")}, stored())
			if !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 {
				t.Fatalf("got error %v, want one short line of %v", err, tt.want)
			}
			if e.Kind != "a.b" || e.Token != tt.token || string(e.Payload) != "payload" || !e.Published.Equal(stored()) {
				t.Errorf("got %+v, want all that could be read", e)
			}
			spent := e.SpentMessage("s", mulligan.Move{Reason: mulligan.Malformed, Error: err.Error()})
			back, move := mulligan.OpenSpent("a.b", mulligan.SafeToken(tt.token), spent)
			if move.Reason != mulligan.Malformed || move.Error != err.Error() || back.Token != e.Token && e.Token != "" || string(back.Payload) != "payload" {
				t.Errorf("handed to a scheduler it is %+v with %+v, want it whole and malformed", back, move)
			}
		})
	}
}

func TestAMoveKeepsBodyAndHeadersBitForBit(t *testing.T) {
	m := &nats.Msg{Data: []byte{0, 255, '\n', 0}, Header: nats.Header{
		"mulligan-user": {"ü"}, "Mulligan-Deadline": {"2026-03-01T14:00:00+01:00"}, "Content-Type": {"text/plain; charset=utf-8"},
		"X-Odd-case": {"1", "", "2"}, "X-Empty": {""},
	}}
	first, err := mulligan.OpenJob("a.b", "1", m, stored())
	if err != nil {
		t.Fatal(err)
	}
	moved := first.Moved("somewhere")
	want := nats.Header{"Mulligan-User": {"ü"}, "Mulligan-Deadline": {"2026-03-01T14:00:00+01:00"}, "Content-Type": {"text/plain; charset=utf-8"},
		"X-Odd-case": {"1", "", "2"}, "X-Empty": {""}, "Mulligan-Published": {stored().Format(time.RFC3339Nano)}}
	if !reflect.DeepEqual(moved.Header, want) || !bytes.Equal(moved.Data, m.Data) || moved.Subject != "somewhere" {
		t.Errorf("moved: got %+v, want headers %v", moved, want)
	}
	for range 3 {
		again, err := mulligan.OpenMoved("a.b", "1", moved)
		if err != nil || !reflect.DeepEqual(again, first) {
			t.Fatalf("opened again: got %+v, %v; want %+v", again, err, first)
		}
		moved = again.Moved("elsewhere")
		if !reflect.DeepEqual(moved.Header, want) || !bytes.Equal(moved.Data, m.Data) {
			t.Fatalf("moved again: got %+v, want headers %v", moved, want)
		}
	}
}

func TestAHandlerCannotChangeWhatIsMoved(t *testing.T) {
	e, err := mulligan.OpenJob("a.b", "1", &nats.Msg{Header: nats.Header{"X-Team": {"a"}}}, stored())
	if err != nil {
		t.Fatal(err)
	}
	e.Job.Header.Set("X-Team", "b")
	e.Job.Header.Set("X-More", "c")
	if got := e.Moved("s").Header; got.Get("X-Team") != "a" || got.Get("X-More") != "" {
		t.Errorf("after the handler changed its headers %v are moved", got)
	}
}

func TestAMovedJobKeepsItsDeadline(t *testing.T) {
	for _, tt := range []struct {
		name, deadline string
		want           time.Time
	}{
		{"a job without a deadline has a day from when it was published", "", stored().Add(24 * time.Hour)},
		{"a deadline stays", "2026-03-02T00:00:00Z", time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)},
		{"a deadline that is too far away is cut after a move too", "2999-01-01T00:00:00Z", stored().Add(mulligan.MaxDeadline)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &nats.Msg{Header: nats.Header{"Mulligan-Deadline": {tt.deadline}}}
			e, err := mulligan.OpenJob("a.b", "1", m, stored())
			if err != nil || !e.Deadline.Equal(tt.want) {
				t.Fatalf("published: deadline %v, %v; want %v", e.Deadline, err, tt.want)
			}
			e, err = mulligan.OpenMoved("a.b", "1", e.Moved("s"))
			if err != nil || !e.Deadline.Equal(tt.want) {
				t.Errorf("moved: deadline %v, %v; want %v", e.Deadline, err, tt.want)
			}
		})
	}
}

func TestOpenMovedRefusesATimeThatIsNone(t *testing.T) {
	_, err := mulligan.OpenMoved("a.b", "1", &nats.Msg{Header: nats.Header{"Mulligan-Published": {"then"}}})
	if !errors.Is(err, mulligan.ErrBadJob) {
		t.Errorf("got %v, want ErrBadJob", err)
	}
}

func TestOpenSpent(t *testing.T) {
	e, err := mulligan.OpenJob("a.b", "1", &nats.Msg{Data: []byte("p")}, stored())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		move, want mulligan.Move
	}{
		{"a spent job comes with its reason and error", mulligan.Move{Reason: mulligan.Expired, ErrorType: "timeout", Error: "too slow"},
			mulligan.Move{Verb: mulligan.Spend, Reason: mulligan.Expired, ErrorType: "timeout", Error: "too slow"}},
		{"an error of several lines becomes one", mulligan.Move{Reason: mulligan.PermanentFailure, Error: "a\r\nb\tc\x00\n"},
			mulligan.Move{Verb: mulligan.Spend, Reason: mulligan.PermanentFailure, Error: "a  b c"}},
		{"an error may be missing", mulligan.Move{Reason: mulligan.Crashed}, mulligan.Move{Verb: mulligan.Spend, Reason: mulligan.Crashed}},
		{"a job spent for no known reason is malformed", mulligan.Move{Reason: "bored"},
			mulligan.Move{Verb: mulligan.Spend, Reason: mulligan.Malformed, Error: `spent without a known reason: "bored"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			back, move := mulligan.OpenSpent("a.b", "1", e.SpentMessage("s", tt.move))
			if move != tt.want || !reflect.DeepEqual(back, e) {
				t.Errorf("got %+v of %+v, want %+v of %+v", move, back, tt.want, e)
			}
		})
	}
}

func TestSplitSubject(t *testing.T) {
	for _, tt := range []struct{ name, subject, kind, token string }{
		{"a kind of one token", "m.jobs.a.1", "a", "1"},
		{"a kind of several tokens", "m.jobs.a.b.c.1", "a.b.c", "1"},
		{"an encoded ID", "m.jobs.a.b.=Kg", "a.b", "=Kg"},
		{"a subject that is too short", "m.jobs.a", "a", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kind, token := mulligan.SplitSubject("m.jobs", tt.subject)
			if kind != tt.kind || token != tt.token {
				t.Errorf("SplitSubject(%q) = %q, %q; want %q, %q", tt.subject, kind, token, tt.kind, tt.token)
			}
		})
	}
}

func FuzzOpenJob(f *testing.F) {
	f.Add("a.b", "1", "Mulligan-User", "u", "X-Team", "t", []byte("p"))
	f.Add("a.b", "=YSBi", "mulligan-id", "a b", "MULLIGAN-ID", "", []byte(nil))
	f.Add("a", "~", "Mulligan-Deadline", "2026-03-01T13:00:00Z", "mulligan-deadline", "then", []byte{0})
	f.Add("a", "1", "Mulligan-Not-Before", "0000-01-01T00:00:00-23:59", "Nats-Rollup", "all", []byte{255})
	f.Add("", "", "", "", "bad name", "a\nb", []byte("\r\n"))
	f.Fuzz(func(t *testing.T, kind, token, name1, value1, name2, value2 string, data []byte) {
		m := &nats.Msg{Header: nats.Header{name1: {value1}, name2: {value2}}, Data: data}
		e, err := mulligan.OpenJob(kind, token, m, stored())
		if !bytes.Equal(e.Payload, data) || e.Token != token || e.Kind != kind {
			t.Fatalf("got %+v, want everything that could be read", e)
		}
		for name := range e.Moved("s").Header {
			if strings.HasPrefix(strings.ToLower(name), "nats-") {
				t.Fatalf("header %q would be moved", name)
			}
		}
		if err != nil {
			return
		}
		if e.Deadline.IsZero() || e.Deadline.After(stored().Add(mulligan.MaxDeadline)) {
			t.Fatalf("deadline %v of a job stored at %v", e.Deadline, stored())
		}
		again, err := mulligan.OpenMoved(kind, token, e.Moved("s"))
		again.Replay = e.Replay // is for the stream of jobs only
		if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", e) {
			t.Fatalf("moved: got %+v, %v; want %+v", again, err, e)
		}
	})
}
