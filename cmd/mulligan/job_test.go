package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// record writes what the ledger knows of a key.
func record(t *testing.T, e *natstest.Env, kind, id string, r mulligan.Record) {
	t.Helper()
	kv, err := e.JS.KeyValue(t.Context(), mulligan.Topology{}.LedgerBucket())
	if err == nil {
		_, err = kv.Put(t.Context(), mulligan.RecordKey(kind, mulligan.Token(id)), r.Encode())
	}
	if err != nil {
		t.Error(err)
	}
}

func TestAJobIsWaitedFor(t *testing.T) {
	e, at := provisionedServer(t)
	if c := call(t, "", at("publish", "email.send", "{}", "--id", "a")...); c.code != exitDone {
		t.Fatal(c.err)
	}
	early := call(t, "", at("job", "email.send", "a", "--wait", "30ms", "--json")...)
	if v := decoded[api.JobView](t, early); early.code != exitFailed || v.State != mulligan.StatusQueued ||
		!strings.Contains(early.err, "the time is up: after 30ms email.send a is queued") || strings.Count(early.err, "\n") != 1 {
		t.Errorf("a job that does not end in time: exit %d, %+v, %q; want exit 1, its state, and one line", early.code, v, early.err)
	}
	ended := make(chan called)
	go func() { ended <- call(t, "", at("job", "email.send", "a", "--wait", "--json")...) }()
	record(t, e, "email.send", "a", mulligan.Record{State: mulligan.Done, Payload: mulligan.FingerprintOf([]byte("{}")), Result: mulligan.NewResult([]byte(`"sent"`), time.Now())})
	c := <-ended
	if v := decoded[api.JobView](t, c); c.code != exitDone || v.State != mulligan.StatusDone || string(v.Result) != `"sent"` {
		t.Errorf("a job that ends: exit %d, %+v, %q; want exit 0 and its result", c.code, v, c.err)
	}
	record(t, e, "email.send", "b", mulligan.Record{State: mulligan.Dead, Reason: mulligan.Expired})
	if c := call(t, "", at("job", "email.send", "b", "--wait=1m")...); c.code != exitDone || !strings.Contains(c.out, "is dead (expired)") {
		t.Errorf("a job that is dead: exit %d, %q", c.code, c.out)
	}
}

func TestAnUnknownJobExitsWithOne(t *testing.T) {
	_, at := provisionedServer(t)
	for _, wait := range [][]string{nil, {"--wait"}} {
		c := call(t, "", at(append([]string{"job", "email.send", "a b", "--json"}, wait...)...)...)
		if v := decoded[api.JobView](t, c); c.code != exitFailed || v.State != mulligan.StatusUnknown || !strings.Contains(c.err, "nothing is known of email.send 'a b'") || strings.Count(c.err, "\n") != 1 {
			t.Errorf("%q: exit %d, %+v, %q; want exit 1, the object, and a hint in one line", wait, c.code, v, c.err)
		}
	}
	if c := call(t, "", at("job", "email.send", " a")...); c.code != exitUsage {
		t.Errorf("an ID that cannot be: exit %d, %q; want 2", c.code, c.err)
	}
}

func TestWaitTakesADurationOrNone(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"job k 1 --wait", "job k 1 --wait"},
		{"job k 1 --wait 5s", "job k 1 --wait=5s"},
		{"job --wait 5s k 1 --json", "job --wait=5s k 1 --json"},
		{"job --wait k 1", "job --wait k 1"},
		{"job --wait=5s k 1m", "job --wait=5s k 1m"},
		{"job -- --wait 5s", "job -- --wait 5s"},
	} {
		before := strings.Fields(c.args)
		if got := joinWait(before); strings.Join(got, " ") != c.want || !slices.Equal(before, strings.Fields(c.args)) {
			t.Errorf("%s gave %q, want %s", c.args, got, c.want)
		}
	}
}

func TestWhatIsKnownOfAJobIsShown(t *testing.T) {
	var out bytes.Buffer
	p := program{out: &out}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p.showJob(api.View(mulligan.Status{Kind: "order.place", ID: "7", State: mulligan.StatusWaiting, Record: &mulligan.Record{State: mulligan.Live, Attempts: 2,
		Steps:   []mulligan.StepRecord{{Name: "charge", Result: mulligan.NewResult([]byte(`"ch_1"`), at)}, {Name: "mail", Begun: at, Run: "r"}},
		History: []mulligan.Attempt{{Number: 1, At: at, ErrorType: "refused", NotStarted: true}, {Number: 2, At: at, ErrorType: "invalid", Change: []byte(`{"tone":"plain"}`)}}}}))
	for _, want := range []string{"order.place 7 is waiting, attempts: 2", "charge", "done", "6 bytes", "mail", "begun", "no effect for certain", `changed {"tone":"plain"}`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	out.Reset()
	if p.showJob(api.View(mulligan.Status{State: mulligan.StatusDone, Record: &mulligan.Record{State: mulligan.Done, History: []mulligan.Attempt{{Number: 1, ErrorType: "busy"}}}})); strings.Contains(strings.ToLower(out.String()), "notes") {
		t.Errorf("notes without any:\n%s", &out)
	}
}
