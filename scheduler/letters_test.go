package scheduler_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// ids of letters, in their order.
func ids(letters []mulligan.Letter) []string {
	var ids []string
	for _, l := range letters {
		ids = append(ids, l.Kind+" "+l.ID)
	}
	return ids
}

// shelve writes a letter of a kind.
func (f *floor) shelve(t *testing.T, kind, id string, reason mulligan.Reason) {
	t.Helper()
	e := job(id, nil)
	e.Kind = kind
	f.letter(t, mulligan.Letter{Envelope: e, Reason: reason})
}

func TestLettersAreFoundByKindAndReason(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	f.shelve(t, "a", "b", mulligan.AttemptsExhausted)
	f.shelve(t, "a.b", "c", mulligan.PermanentFailure)
	f.shelve(t, "a.b", "order 7", mulligan.AttemptsExhausted)
	f.shelve(t, "a", "b", mulligan.KeyConflict)
	f.shelve(t, "a.b.c", "d", mulligan.PermanentFailure)
	f.shelve(t, "a", "e", mulligan.PermanentFailure)
	f.put(t, &nats.Msg{Subject: f.Env.Topology.DeadRoot() + ".a.garbage", Data: []byte("not a letter")})
	for _, tt := range []struct {
		name  string
		query scheduler.Query
		want  []string
	}{
		{"without a filter all come, the newest first", scheduler.Query{}, []string{"a e", "a.b.c d", "a b", "a.b order 7", "a.b c", "a b"}},
		{"a kind has its own and its conflicts", scheduler.Query{Kind: "a"}, []string{"a e", "a b", "a b"}},
		{"a longer kind is another kind", scheduler.Query{Kind: "a.b"}, []string{"a.b order 7", "a.b c"}},
		{"the longest kind is another kind too", scheduler.Query{Kind: "a.b.c"}, []string{"a.b.c d"}},
		{"a kind without letters has none", scheduler.Query{Kind: "b"}, nil},
		{"a reason is looked for in all kinds", scheduler.Query{Reason: mulligan.PermanentFailure}, []string{"a e", "a.b.c d", "a.b c"}},
		{"kind and reason are looked for together", scheduler.Query{Kind: "a", Reason: mulligan.PermanentFailure}, []string{"a e"}},
		{"a limit keeps the newest", scheduler.Query{Limit: 2}, []string{"a e", "a.b.c d"}},
		{"a limit counts what matches", scheduler.Query{Kind: "a.b", Limit: 1}, []string{"a.b order 7"}},
		{"a limit may be more than there is", scheduler.Query{Kind: "a", Limit: 1000}, []string{"a e", "a b", "a b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := f.Letters(t.Context(), tt.query)
			if err != nil || !slices.Equal(ids(got), tt.want) {
				t.Errorf("%+v: got %q, %v; want %q", tt.query, ids(got), err, tt.want)
			}
		})
	}
}

func TestHundredsOfLettersAreRead(t *testing.T) {
	const n = 430
	f := open(t, natstest.Server(t), mulligan.Topology{})
	if got, err := f.Letters(t.Context(), scheduler.Query{}); got != nil || err != nil {
		t.Errorf("of none there are %d, %v", len(got), err)
	}
	for i := range n {
		f.shelve(t, []string{"llm.complete", "email.send"}[i%2], fmt.Sprint(i), mulligan.SpentReasons()[i%4])
	}
	for _, tt := range []struct {
		query       scheduler.Query
		want        int
		first, last string
	}{
		{scheduler.Query{}, 100, "email.send 429", "llm.complete 330"},
		{scheduler.Query{Limit: n}, n, "email.send 429", "llm.complete 0"},
		{scheduler.Query{Kind: "llm.complete", Limit: n}, n / 2, "llm.complete 428", "llm.complete 0"},
		{scheduler.Query{Kind: "email.send", Reason: mulligan.SpentReasons()[1], Limit: 50}, 50, "email.send 429", "email.send 233"},
		{scheduler.Query{Kind: "email.send", Reason: mulligan.SpentReasons()[0], Limit: 50}, 0, "", ""},
	} {
		got, err := f.Letters(t.Context(), tt.query)
		if err != nil || len(got) != tt.want {
			t.Errorf("%+v: got %d letters, %v; want %d", tt.query, len(got), err, tt.want)
			continue
		}
		if tt.want > 0 && (ids(got)[0] != tt.first || ids(got)[tt.want-1] != tt.last) {
			t.Errorf("%+v: got %s to %s, want %s to %s", tt.query, ids(got)[0], ids(got)[tt.want-1], tt.first, tt.last)
		}
		if !slices.IsSortedFunc(got, func(a, b mulligan.Letter) int { return int(b.Seq) - int(a.Seq) }) {
			t.Errorf("%+v: the newest are not first", tt.query)
		}
	}
}

func TestABadQueryIsRefused(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	for name, q := range map[string]scheduler.Query{
		"a negative limit":     {Limit: -1},
		"an unknown reason":    {Reason: "because"},
		"a deferral's reason":  {Reason: mulligan.Snoozed},
		"a kind with a space":  {Kind: "a b"},
		"a kind with a star":   {Kind: "*"},
		"a kind with a finish": {Kind: "a.>"},
	} {
		if got, err := f.Letters(t.Context(), q); err == nil || got != nil {
			t.Errorf("%s: got %d letters and no error", name, len(got))
		}
	}
	if _, err := f.Letter(t.Context(), "a b", "x"); !errors.Is(err, mulligan.ErrBadKind) {
		t.Errorf("the letter of a bad kind: got %v", err)
	}
}

func TestALetterIsFoundByItsKindAndID(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	f.shelve(t, "a.b", "c", mulligan.PermanentFailure)
	f.shelve(t, "a.b", "order 7", mulligan.AttemptsExhausted)
	f.shelve(t, "a", "conflict", mulligan.KeyConflict)
	f.shelve(t, "a.conflict", "newer", mulligan.PermanentFailure)
	for _, tt := range []struct {
		name, kind, id string
		want           mulligan.Reason // none is not found
	}{
		{"by a plain ID", "a.b", "c", mulligan.PermanentFailure},
		{"by an ID that needs encoding", "a.b", "order 7", mulligan.AttemptsExhausted},
		{"a conflict's by the key", "a", "conflict", mulligan.KeyConflict},
		{"no letter of another ID", "a.b", "d", ""},
		{"no letter of another kind", "a", "c", ""},
		{"no letter of a kind that goes on where this one ends", "a", "b", ""},
		{"no letter with an ID that looks like a subject", "a", "b.c", ""},
		{"no letter with an ID that looks like a wildcard", "a.b", "*", ""},
		{"no letter of an empty ID", "a.b", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := f.Letter(t.Context(), tt.kind, tt.id)
			if tt.want == "" && !errors.Is(err, mulligan.ErrNotFound) {
				t.Errorf("%s %q: got the letter of %s %q, %v; want none", tt.kind, tt.id, l.Kind, l.ID, err)
			}
			if tt.want != "" && (err != nil || l.Reason != tt.want || l.Kind != tt.kind || l.ID != tt.id) {
				t.Errorf("%s %q: got the letter of %s %q, %s, %v; want %s", tt.kind, tt.id, l.Kind, l.ID, l.Reason, err, tt.want)
			}
		})
	}
}

func TestEachLetterIsFoundByItsNumber(t *testing.T) {
	f := open(t, natstest.Server(t), mulligan.Topology{})
	own := f.letter(t, mulligan.Letter{Envelope: job("x", []byte("own"))})
	first := f.letter(t, mulligan.Letter{Envelope: job("x", []byte("first")), Reason: mulligan.KeyConflict})
	second := f.letter(t, mulligan.Letter{Envelope: job("x", []byte("second")), Reason: mulligan.KeyConflict})
	garbage := f.put(t, &nats.Msg{Subject: f.Env.Topology.DeadRoot() + ".a.garbage", Data: []byte("not a letter")})
	for _, want := range []mulligan.Letter{own, first, second} {
		l, err := f.LetterAt(t.Context(), want.Seq)
		if err != nil || l.Seq != want.Seq || string(l.Payload) != string(want.Payload) || l.Reason != want.Reason {
			t.Errorf("letter %d is %q, %s, %v; want %q, %s", want.Seq, l.Payload, l.Reason, err, want.Payload, want.Reason)
		}
	}
	if _, err := f.LetterAt(t.Context(), garbage); err == nil {
		t.Error("what is no letter was opened")
	}
	for _, seq := range []uint64{0, garbage + 1} {
		if l, err := f.LetterAt(t.Context(), seq); !errors.Is(err, mulligan.ErrNotFound) {
			t.Errorf("letter %d: got %+v, %v", seq, l, err)
		}
	}
}
