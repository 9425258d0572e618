package integration

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	configfile "github.com/mulligan-queue/mulligan/internal/config"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// blocks are the README's blocks of code in a language.
func blocks(t *testing.T, language string, want int) []string {
	t.Helper()
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(read(t, "README.md")), -1) {
		found = append(found, m[1])
	}
	if len(found) != want {
		t.Fatalf("the README has %d blocks of %s, want %d", len(found), language, want)
	}
	return found
}

// compile builds a program whose source is in the README.
func compile(t *testing.T, source string) (path string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, filepath.Join(dir, "main.go"))
	build.Dir = repository(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func TestReadmesFirstJobRuns(t *testing.T) {
	t.Parallel()
	source := blocks(t, "go", 2)[0]
	if n := strings.Count(source, "\n"); n > 30 {
		t.Errorf("the first job has %d lines, want at most 30", n)
	}
	path := compile(t, source)
	env := natstest.Server(t)
	env.Provision(t, mulligan.Topology{})
	done := make(chan mulligan.Record, 1)
	watch(t, env, "invoice.send.42", func(r mulligan.Record) bool { return r.State == mulligan.Done }, done)

	first := exec.CommandContext(t.Context(), path)
	first.Env = append(environ(), "NATS_URL="+env.URL)
	var out bytes.Buffer
	first.Stdout, first.Stderr = &out, &out
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-done:
		if want := `"sent to ada@example.org under the key invoice.send/42"`; string(r.Result.Data) != want {
			t.Errorf("got the result %s, want %s", r.Result.Data, want)
		}
	case <-time.After(30 * time.Second):
		t.Error("the job was not done in time")
	}
	if err := first.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the first job's program: %v\n%s", err, &out)
	}
}

func TestReadmesOneMailPerOrder(t *testing.T) {
	t.Parallel()
	env := natstest.Server(t)
	env.Provision(t, mulligan.Topology{})
	c := exec.CommandContext(t.Context(), compile(t, blocks(t, "go", 2)[1]))
	c.Env = append(environ(), "NATS_URL="+env.URL)
	out, err := c.CombinedOutput()
	want := "order-7 is done at attempt 2; charged 1 times, mailed 1 times"
	if err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("it says %q, %v; want %q", out, err, want)
	}
	if !strings.Contains(string(read(t, "README.md")), want) {
		t.Errorf("the README does not say that it says %q", want)
	}
}

// watch sends the first record of a key that is as wanted.
func watch(t *testing.T, env *natstest.Env, key string, wanted func(mulligan.Record) bool, to chan<- mulligan.Record) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	kv, err := env.JS.KeyValue(ctx, mulligan.Topology{}.LedgerBucket())
	if err != nil {
		t.Fatal(err)
	}
	w, err := kv.Watch(ctx, key, jetstream.IgnoreDeletes())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for e := range w.Updates() {
			if e == nil { // all that was there has come
				continue
			}
			if r, err := mulligan.DecodeRecord(e.Value()); err == nil && wanted(*r) {
				to <- *r
				return
			}
		}
	}()
}

func TestReadmesConfigFileIsRead(t *testing.T) {
	t.Parallel()
	f, err := configfile.Parse([]byte(blocks(t, "yaml", 1)[0]))
	if err != nil || len(f.Kinds) != 1 || len(f.Targets) != 1 {
		t.Errorf("got %d kinds, %d targets and %v", len(f.Kinds), len(f.Targets), err)
	}
}

// names are the distinct matches of a pattern in a file of the repository.
func names(t *testing.T, pattern string, file ...string) []string {
	t.Helper()
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(read(t, file...)), -1) {
		found[m[1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

func TestReadmeNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	var settings, inFile []string
	for f := range reflect.TypeFor[configfile.Settings]().Fields() {
		settings = append(settings, f.Tag.Get("env"))
		if key := f.Tag.Get("yaml"); key != "-" {
			inFile = append(inFile, key)
		}
	}
	for _, r := range mulligan.SpentReasons() {
		if !strings.Contains(string(read(t, "README.md")), "`"+string(r)+"`") {
			t.Errorf("the README does not have the reason %s", r)
		}
	}
	const row = "(?m)^\\| (?:`--[a-z-]+`(?: \\([a-z, ]+\\))?|–) \\| "
	for _, c := range []struct {
		what      string
		got, want []string
	}{
		{"settings", names(t, row+"`([A-Z_]+)`", "README.md"), settings},
		{"settings of the file", names(t, row+"`[A-Z_]+` \\| `([a-z_]+)`", "README.md"), inFile},
		{"metrics", names(t, "(?m)^\\| `(mulligan_[a-z_]+)`", "README.md"), slices.Concat(names(t, `"(mulligan_[a-z_]+)"`, "metrics", "metrics.go"), names(t, `"(mulligan_[a-z_]+)"`, "metrics", "downstream.go"))},
	} {
		slices.Sort(c.want)
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: the README has\n%q, there is\n%q", c.what, c.got, c.want)
		}
	}
}

func TestReadmesCommandsAreTheProgramsOwn(t *testing.T) {
	t.Parallel()
	flag := regexp.MustCompile(`--[a-z-]+`)
	rows := names(t, "(?m)^\\| (`(?:serve|worker|provision|doctor|kinds|publish|job|dead).*?`) \\| ", "README.md")
	if len(rows) < 8 {
		t.Fatalf("found %d rows of commands in the README", len(rows))
	}
	for _, row := range rows {
		for _, part := range strings.Split(strings.Trim(row, "`"), "`, `") {
			words := strings.Fields(part)
			command := words[:1]
			if words[0] == "dead" {
				command = words[:2]
			}
			out, err := exec.CommandContext(t.Context(), program(t), append(slices.Clone(command), "--help")...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "mulligan "+strings.Join(command, " ")) {
				t.Errorf("mulligan %v --help: %v\n%s", command, err, out)
			}
			for _, name := range flag.FindAllString(part, -1) {
				if !strings.Contains(string(out), name+" ") {
					t.Errorf("mulligan %v has no flag %s", command, name)
				}
			}
		}
	}
}
