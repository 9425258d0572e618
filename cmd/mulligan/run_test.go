package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// called is what a call of the program left behind.
type called struct {
	code     int
	out, err string
}

// call runs the program in this process, in an empty environment.
func call(t *testing.T, stdin string, args ...string) called {
	t.Helper()
	var out, err bytes.Buffer
	p := program{in: strings.NewReader(stdin), out: &out, err: &err}
	code := p.run(t.Context(), args)
	return called{code, out.String(), err.String()}
}

// decoded reads the JSON that a call printed.
func decoded[T any](t *testing.T, c called) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(c.out), &v); err != nil {
		t.Fatalf("exit %d, %v in %q; standard error: %s", c.code, err, c.out, c.err)
	}
	return v
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const twoKinds = `
kinds:
  email.send: {effect: keyed, downstream: mailer}
  llm.complete: {effect: pure}
`

// provisioned returns flags for a server that has the two kinds.
func provisionedServer(t *testing.T) (*natstest.Env, func(args ...string) []string) {
	t.Helper()
	e := natstest.Server(t)
	at := func(args ...string) []string { return append(args, "--server", e.URL) }
	if c := call(t, "", at("provision", "--config", write(t, "kinds.yaml", twoKinds))...); c.code != exitDone {
		t.Fatalf("provision: exit %d: %s", c.code, c.err)
	}
	return e, at
}

func TestAWrongCallExitsWithTwoAndSaysWhatToDo(t *testing.T) {
	broken := write(t, "broken.yaml", "kinds:\n  a: {efect: pure}\n")
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"an unknown command", []string{"frobnicate"}, "unknown command"},
		{"an unknown flag", []string{"kinds", "--frobnicate"}, "unknown flag"},
		{"a group without a command", []string{"dead"}, "ls|show|replay"},
		{"a group with an unknown command", []string{"dead", "dig"}, "ls|show|replay"},
		{"too few arguments", []string{"job", "email.send"}, "accepts 2 arg"},
		{"a name that is no kind's", []string{"job", "no kind", "1"}, "not dot-separated"},
		{"nothing to publish", []string{"publish"}, "--file jobs.jsonl"},
		{"a bad deadline", []string{"publish", "a", "--deadline", "soon"}, "--deadline"},
		{"a deadline that has passed", []string{"publish", "a", "--deadline", "-1h"}, "in the past"},
		{"a deadline on a day that has passed", []string{"publish", "a", "--deadline", "2020-01-02T03:04:05Z"}, "in the past"},
		{"an ID of nothing", []string{"publish", "a", "--id", ""}, "--id"},
		{"an ID with a line end", []string{"publish", "a", "--id", "a\nb"}, "control character"},
		{"an ID that is too long", []string{"publish", "a", "--id", strings.Repeat("x", 256)}, "over 255 bytes"},
		{"no time to wait", []string{"job", "a", "1", "--wait", "0s"}, "--wait"},
		{"a bad not-before", []string{"publish", "a", "--not-before", "soon"}, "--not-before"},
		{"a kind beside a file", []string{"publish", "a", "--file", "x"}, "leave out"},
		{"an ID beside a file", []string{"publish", "--id", "a", "--file", "x"}, "--id"},
		{"a file that is not there", []string{"publish", "--file", "/nowhere/jobs.jsonl"}, "/nowhere/jobs.jsonl"},
		{"a limit of nothing", []string{"dead", "ls", "--limit", "0"}, "--limit"},
		{"an unknown reason", []string{"dead", "ls", "--reason", "sad"}, "--reason"},
		{"a bad kind to list", []string{"dead", "ls", "--kind", "a b"}, "--kind"},
		{"a config file with a mistake", []string{"provision", "--config", broken}, `unknown field "efect"`},
		{"a config file that is not there", []string{"provision", "--config", "/nowhere"}, "/nowhere"},
		{"a bad log level", []string{"kinds", "--log-level", "loud"}, "MULLIGAN_LOG_LEVEL"},
		{"a public HTTP address without a token", []string{"serve", "--http", ":0"}, "MULLIGAN_TOKEN"},
		{"a public NATS address without a token", []string{"serve", "--nats-listen", "0.0.0.0:0"}, "MULLIGAN_TOKEN"},
		{"a worker without a target", []string{"worker"}, "--config"},
		{"a case that there is not", []string{"storm", "--case", "rain"}, "standard, outage"},
		{"a load that nobody serves", []string{"storm", "--load", "1"}, "between 0 and 1"},
		{"no seeds", []string{"storm", "--seeds", "0"}, "--seeds"},
		{"a phase diagram of one load", []string{"storm", "--case", "phase", "--load", "0.5"}, "--load"},
		{"a phase diagram over time", []string{"storm", "--case", "phase", "--svg", "x"}, "--svg"},
		{"a server that is no URL", []string{"kinds", "--server", "nats://"}, "--server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := call(t, "", c.args...)
			if got.code != exitUsage || !strings.Contains(got.err, c.want) || strings.Count(got.err, "\n") != 1 || got.out != "" {
				t.Errorf("%q: exit %d, out %q, error %q; want exit 2 and one line with %q", c.args, got.code, got.out, got.err, c.want)
			}
		})
	}
}

func TestAServerThatIsAwayExitsWithOne(t *testing.T) {
	got := call(t, "", "kinds", "--server", "nats://ada:secret@127.0.0.1:1")
	if got.code != exitFailed || !strings.Contains(got.err, "mulligan serve") || strings.Contains(got.err, "secret") {
		t.Errorf("exit %d, %q; want exit 1, what to start, and no password", got.code, got.err)
	}
}

func TestAServerWithoutStreamsExitsWithOne(t *testing.T) {
	e := natstest.Server(t)
	if err := e.JS.DeleteKeyValue(t.Context(), mulligan.Topology{}.LedgerBucket()); err == nil {
		t.Fatal("the server has streams already; this test wants one without")
	}
	for _, args := range [][]string{{"job", "a", "b"}, {"publish", "a"}, {"kinds"}, {"dead", "ls"}} {
		got := call(t, "", append(args, "--server", e.URL)...)
		if got.code != exitFailed || !strings.Contains(got.err, "mulligan provision") {
			t.Errorf("%q: exit %d, %q; want exit 1 and the command that helps", args, got.code, got.err)
		}
	}
}

func TestFlagsGoOverTheEnvironment(t *testing.T) {
	p := program{environ: []string{"NATS_URL=nats://a:1", "MULLIGAN_HTTP=:80", "MULLIGAN_LOG_LEVEL=debug"}, err: &bytes.Buffer{}}
	root := p.root()
	serve, _, err := root.Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.ParseFlags([]string{"--server", "nats://b:2", "--http", "127.0.0.1:0", "--demo"}); err != nil {
		t.Fatal(err)
	}
	if err := p.begin(serve.Flags()); err != nil {
		t.Fatalf("a flag mends what is wrong in the environment: %v", err)
	}
	if s := p.cfg.Settings; s.NATSURL != "nats://b:2" || s.HTTP != "127.0.0.1:0" || s.LogLevel != "debug" {
		t.Errorf("got %+v", s)
	}
}
