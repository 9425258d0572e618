package mulligan_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
)

func TestAnEmptyJobWithAStatusIsMalformedAndMovesWithoutIt(t *testing.T) {
	for _, name := range []string{"Status", "status", "STATUS"} {
		m := &nats.Msg{Header: nats.Header{name: {"503"}, "Description": {"odd"}, "X-Team": {"a"}, "Mulligan-User": {"u"}}}
		e, err := mulligan.OpenJob("a.b", "1", m, stored())
		if !errors.Is(err, mulligan.ErrBadJob) || !strings.Contains(err.Error(), "belongs to the NATS protocol") {
			t.Errorf("%s: got %v, want ErrBadJob", name, err)
		}
		want := nats.Header{"Description": {"odd"}, "X-Team": {"a"}}
		if !reflect.DeepEqual(e.Header, want) || e.User != "u" {
			t.Errorf("%s: got the headers %v and user %q, want %v and u", name, e.Header, e.User, want)
		}
		spent := e.SpentMessage("s", mulligan.Move{Reason: mulligan.Malformed, Error: err.Error()})
		back, move := mulligan.OpenSpent("a.b", "1", spent)
		letter := mulligan.Letter{Envelope: back, Reason: move.Reason, Error: move.Error}
		for _, moved := range []*nats.Msg{spent, letter.Message("d")} {
			if len(moved.Header.Values(name)) > 0 || moved.Header.Get("X-Team") != "a" {
				t.Errorf("%s: moved with %v", name, moved.Header)
			}
		}
		if move.Reason != mulligan.Malformed || move.Error != err.Error() {
			t.Errorf("%s: handed to a scheduler as %+v, want it malformed", name, move)
		}
	}
}

func TestAJobWithABodyKeepsItsStatus(t *testing.T) {
	m := &nats.Msg{Header: nats.Header{"Status": {"503"}}, Data: []byte("p")}
	e, err := mulligan.OpenJob("a.b", "1", m, stored())
	if err != nil || e.Header.Get("Status") != "503" || e.Moved("s").Header.Get("Status") != "503" {
		t.Errorf("got %v, %v; moved with %v", e.Header, err, e.Moved("s").Header)
	}
}

func TestPublishRefusesAStatusWithoutABody(t *testing.T) {
	e, p := publisher(t)
	job := mulligan.Job{Kind: "llm.complete", ID: "1", Header: nats.Header{"status": {"ok"}}}
	if r, err := p.Publish(t.Context(), job); !errors.Is(err, mulligan.ErrBadJob) || r.Seq != 0 {
		t.Errorf("without a body: got %+v, %v; want ErrBadJob", r, err)
	}
	holds(t, e, 0)
	job.Payload = []byte("p")
	mustPublish(t, e, p, job)
	holds(t, e, 1)
}

// A publisher meets what a stranger has put under its key: it is asked what is
// there, and stores nothing beside it.
func TestAStrangersMessageIsFoundUnderItsKey(t *testing.T) {
	for _, tt := range []struct{ name, block string }{
		{"without headers", "NATS/1.0\r\n\r\n"},
		{"with a Status", "NATS/1.0\r\nStatus: 404\r\n\r\n"},
		{"with a status in the first line", "NATS/1.0 503\r\n\r\n"},
		{"with no words that the client knows", "NATS/1.0 409 Consumer Deleted\r\n\r\n"},
		{"with headers that are garbage", "NATS/1.0\r\nno colon\r\n\r\n"},
		{"with a header block that is garbage", "nonsense\r\n\r\n"},
	} {
		for _, body := range []string{"", "p"} {
			t.Run(fmt.Sprintf("%s and the body %q", tt.name, body), func(t *testing.T) {
				e, p := publisher(t)
				raw(t, e, fmt.Sprintf("HPUB mulligan.jobs.email.send.1 %d %d\r\n%s%s\r\n", len(tt.block), len(tt.block)+len(body), tt.block, body))
				stores(t, e, 1)
				if st, err := p.Status(t.Context(), "email.send", "1"); err != nil || st.State != mulligan.StatusQueued {
					t.Errorf("status: got %+v, %v; want queued", st, err)
				}
				job := mulligan.Job{Kind: "email.send", ID: "1", Payload: []byte(body)}
				if r, err := p.Publish(t.Context(), job); err != nil || !r.Duplicate || r.Seq != 1 || r.Unverified {
					t.Errorf("published again: got %+v, %v; want a duplicate", r, err)
				}
				job.Payload = []byte("another")
				if _, err := p.Publish(t.Context(), job); !errors.Is(err, mulligan.ErrKeyConflict) {
					t.Errorf("published with another payload: got %v, want ErrKeyConflict", err)
				}
				holds(t, e, 1)
			})
		}
	}
}

func TestAnEmptyJobWithAStatusIsAdopted(t *testing.T) {
	a, b := normal(t, "a", mulligan.Pure, "d"), normal(t, "b", mulligan.Pure, "d")
	e := provisioned(t, a)
	const block = "NATS/1.0 404\r\n\r\n"
	raw(t, e, fmt.Sprintf("HPUB mulligan.jobs.b.0 %d %d\r\n%s\r\n", len(block), len(block), block))
	publish(t, e, "a", "1", "")
	take(t, consumer(t, e, e.Topology.FreshQueue("d")))
	declare(t, e, b)
	if got := take(t, consumer(t, e, e.Topology.DeferredQueue("d"))); len(got) != 1 || got[0] != "b/0=" {
		t.Errorf("adopted: got %v, want it", got)
	}
}

func TestAPublisherRefusesHeadersThatNoLetterCouldHave(t *testing.T) {
	e, p := publisher(t)
	job := mulligan.Job{Kind: "email.send", ID: "1", Header: nats.Header{"X-Line": {strings.Repeat("x", 31<<10)}}}
	mustPublish(t, e, p, job)
	job.ID, job.Header = "2", nats.Header{"X-Line": {strings.Repeat("x", 33<<10)}}
	if _, err := p.Publish(t.Context(), job); !errors.Is(err, mulligan.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	holds(t, e, 1)
}
