package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// bury writes a letter and its record, as a scheduler does, and returns the
// letter's number.
func bury(t *testing.T, e *natstest.Env, job mulligan.Job, r mulligan.Record) uint64 {
	t.Helper()
	m := &nats.Msg{Data: job.Payload, Header: nats.Header{}}
	envelope, err := mulligan.OpenJob(job.Kind, mulligan.Token(job.ID), m, time.Now().UTC())
	if err != nil {
		t.Fatal(err)
	}
	l := mulligan.Letter{Envelope: envelope, Reason: r.Reason, Attempts: r.Attempts, History: r.History, BuriedAt: time.Now()}
	subject := mulligan.Subject(mulligan.Topology{}.DeadRoot(), job.Kind, envelope.Token)
	if r.Reason == mulligan.KeyConflict {
		subject += ".~" + string(envelope.Fingerprint())
	} else {
		r.State, r.Payload = mulligan.Dead, envelope.Fingerprint()
		record(t, e, job.Kind, job.ID, r)
	}
	ack, err := e.JS.PublishMsg(t.Context(), l.Message(subject))
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// doubted is the record of a once job whose second step has no known end.
func doubted() mulligan.Record {
	at := time.Now().UTC()
	return mulligan.Record{Effect: mulligan.Once, Reason: mulligan.InDoubt, Attempts: 1, Starts: 1, Start: &mulligan.Start{Delivery: "d", At: at},
		History: []mulligan.Attempt{{Number: 1, Run: "r", At: at, ErrorType: "no_end", Verb: mulligan.Spend, Reason: mulligan.InDoubt}},
		Steps:   []mulligan.StepRecord{{Name: "charge", Result: mulligan.NewResult([]byte("1"), at)}, {Name: "mail", Begun: at, Run: "r"}}}
}

func TestAJobInDoubtIsResolvedByAPerson(t *testing.T) {
	e, at := provisionedServer(t)
	const id = "a b; rm -rf /"
	const done, notDone = "`mulligan dead resolve --done mail.send 'a b; rm -rf /'`", "`mulligan dead resolve --not-done mail.send 'a b; rm -rf /'`"
	bury(t, e, mulligan.Job{Kind: "mail.send", ID: id, Payload: []byte("{}")}, doubted())

	shown := call(t, "", at("dead", "show", "mail.send", id)...)
	for _, want := range []string{"is dead (in_doubt)", "charge", "its step mail began at ", done, notDone, "`mulligan dead resolve --step mail --done mail.send 'a b; rm -rf /'`"} {
		if shown.code != exitDone || !strings.Contains(shown.out, want) {
			t.Errorf("dead show: exit %d, no %q in\n%s", shown.code, want, shown.out)
		}
	}
	if v := decoded[letterView](t, call(t, "", at("dead", "show", "mail.send", id, "--json")...)); v.OpenStep != "mail" || v.StartedAt.IsZero() || v.Doubt == "" || len(v.Steps) != 2 {
		t.Errorf("dead show --json: %+v", v)
	}
	refused := call(t, "", at("dead", "replay", "mail.send", id)...)
	if refused.code != exitFailed || strings.Count(refused.err, "\n") != 1 || !strings.Contains(refused.err, done) || !strings.Contains(refused.err, notDone) {
		t.Errorf("dead replay: exit %d, %q; want exit 1 and one line with both commands", refused.code, refused.err)
	}
	again := call(t, "", at("dead", "resolve", "mail.send", id, "--not-done", "--json")...)
	if v := decoded[resolvedView](t, again); again.code != exitDone || v.Done || v.Seq == 0 || v.ID != id {
		t.Errorf("resolved as not done: exit %d, %+v, %s", again.code, v, again.err)
	}
	if c := call(t, "", at("dead", "resolve", "mail.send", id, "--done")...); c.code != exitFailed || !strings.Contains(c.err, "dead ls") {
		t.Errorf("resolved without a letter: exit %d, %q", c.code, c.err)
	}
}

func TestTheResultOfAResolvedJobIsRecorded(t *testing.T) {
	e, _ := provisionedServer(t)
	file := write(t, "receipt", `{"from":"file"}`)
	for _, c := range []struct {
		id    string
		flags []string
		want  string
	}{
		{"none", nil, ""},
		{"flag", []string{"--result", "sent by hand"}, `"sent by hand"`},
		{"file", []string{"--result-file", file}, `{"from":"file"}`},
		{"stdin", []string{"--result-file", "-"}, `"from stdin"`},
		{"-x", []string{"--result", "7"}, "7"},
	} {
		bury(t, e, mulligan.Job{Kind: "mail.send", ID: c.id}, doubted())
		args := append(append([]string{"dead", "resolve", "--done", "--json"}, c.flags...), "--server", e.URL, "--", "mail.send", c.id)
		got := call(t, "from stdin", args...)
		if v := decoded[resolvedView](t, got); got.code != exitDone || !v.Done {
			t.Errorf("%s: exit %d, %+v, %s", c.id, got.code, v, got.err)
		}
		job := call(t, "", "job", "--json", "--server", e.URL, "--", "mail.send", c.id)
		v := decoded[map[string]any](t, job)
		if v["state"] != mulligan.StatusDone || c.want == "" && v["result"] != nil || !strings.Contains(strings.Join(strings.Fields(job.out), ""), strings.Join(strings.Fields(c.want), "")) {
			t.Errorf("%s: the job is %s, want it done with the result %s", c.id, job.out, c.want)
		}
	}
}

func TestAStepIsResolvedAndTheRestFollows(t *testing.T) {
	e, at := provisionedServer(t)
	bury(t, e, mulligan.Job{Kind: "mail.send", ID: "x"}, doubted())
	if c := call(t, "", at("dead", "resolve", "mail.send", "x", "--step", "charge", "--done")...); c.code != exitFailed || !strings.Contains(c.err, "charge") {
		t.Errorf("a step that is done: exit %d, %q", c.code, c.err)
	}
	c := call(t, "", at("dead", "resolve", "mail.send", "x", "--step", "mail", "--done", "--result", `"250 queued"`, "--json")...)
	if v := decoded[resolvedView](t, c); c.code != exitDone || v.Done || v.Seq == 0 {
		t.Errorf("exit %d, %+v, %s; want it queued again", c.code, v, c.err)
	}
	v := decoded[api.JobView](t, call(t, "", at("job", "mail.send", "x", "--json")...))
	if v.State != mulligan.StatusQueued || len(v.Steps) != 2 || v.Steps[1].State != api.StepDone || v.Steps[1].ResultSize != len(`"250 queued"`) {
		t.Errorf("the job is %+v, want both steps done", v)
	}
}

func TestAWrongWordAboutADeadJobExitsWithTwo(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, mulligan.DefaultMaxResult+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, args, want string
	}{
		{"no word", "resolve k 1", "--done and --not-done"},
		{"both words", "resolve k 1 --done --not-done", "one of --done and --not-done"},
		{"a result of nothing", "resolve k 1 --not-done --result x", "belongs to --done"},
		{"a step of nothing", "resolve k 1 --not-done --step mail", "a step belongs to --done"},
		{"a step whose result is no JSON", "resolve k 1 --done --step mail --result sent", "JSON"},
		{"two results", "resolve k 1 --done --result x --result-file y", "one of --result and --result-file"},
		{"a file that is not there", "resolve k 1 --done --result-file /nowhere/r", "/nowhere/r"},
		{"a file that is too large", "resolve k 1 --done --result-file " + large, "65536 bytes"},
		{"no ID", "resolve k --done", "accepts 2 arg"},
		{"a letter without a number", "show k 1 --seq last", "--seq"},
	} {
		got := call(t, "", append([]string{"dead"}, strings.Fields(c.args)...)...)
		if got.code != exitUsage || !strings.Contains(got.err, c.want) || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%s: exit %d, %q; want exit 2 and one line with %q", c.name, got.code, got.err, c.want)
		}
	}
}

func TestALetterBesideTheKeysOwnIsShownByItsNumber(t *testing.T) {
	e, at := provisionedServer(t)
	own := bury(t, e, mulligan.Job{Kind: "email.send", ID: "x", Payload: []byte(`"own"`)}, mulligan.Record{Reason: mulligan.Expired})
	beside := bury(t, e, mulligan.Job{Kind: "email.send", ID: "x", Payload: []byte(`"beside"`)}, mulligan.Record{Reason: mulligan.KeyConflict})
	list := decoded[[]deadJob](t, call(t, "", at("dead", "ls", "--json")...))
	if len(list) != 2 || list[0].Seq != beside || list[1].Seq != own {
		t.Fatalf("dead ls gave %+v, want the numbers %d and %d", list, beside, own)
	}
	if c := call(t, "", at("dead", "ls")...); !strings.Contains(strings.ToLower(c.out), "seq") {
		t.Errorf("dead ls gave %s", c.out)
	}
	show := func(args ...string) called {
		return call(t, "", at(append([]string{"dead", "show", "email.send", "x", "--json"}, args...)...)...)
	}
	if v := decoded[letterView](t, show()); v.Seq != own || string(v.Payload) != `"own"` {
		t.Errorf("without a number: %+v", v)
	}
	if v := decoded[letterView](t, show("--seq", "2")); v.Seq != beside || string(v.Payload) != `"beside"` || v.Reason != mulligan.KeyConflict || v.Doubt != "" {
		t.Errorf("by its number: %+v", v)
	}
	if c := show("--seq", "9"); c.code != exitFailed || !strings.Contains(c.err, "no dead letter 9") {
		t.Errorf("a number that is not there: exit %d, %q", c.code, c.err)
	}
	if c := call(t, "", at("dead", "show", "email.send", "y", "--seq", "2")...); c.code != exitFailed || !strings.Contains(c.err, "letter 2 is of email.send x") {
		t.Errorf("a number of another key: exit %d, %q", c.code, c.err)
	}
}
