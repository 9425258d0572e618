package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/config"
)

const whole = `
kinds:
  email.send:
    effect: keyed
    downstream: mailer
    http: {url: "http://127.0.0.1:9000/send", timeout: 5s, concurrency: 16, headers: {X-Team: mail}}
    policy: {attempts: 4, total: 10s, first_delay: 100ms, max_delay: 10s}
  llm.complete:
    effect: pure
    http: {url: "http://LLM.example.org:8080/v1"}
    policy: durable
  report.build: {effect: pure}
downstreams:
  mailer: {ratio: 0.2, cap: 20, floor: 2, capacity: 100, peak: 70}
  default: {concurrency: 4}
user_rate: {per_second: 2.5, burst: 20}
topology: {prefix: shop, replicas: 3, jobs_max_bytes: 1000000}
http: {max_connections: 100, max_requests: 10, max_waiting: 5}
settings: {http: "127.0.0.1:9090", log_level: warn}
`

// bomb is a file that means two to the power of 60 entries.
func bomb(line string) string {
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, line, "a", i+1, i)
	}
	return b.String()
}

func TestAWholeFileIsRead(t *testing.T) {
	f, err := config.Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Kinds) != 3 || len(f.Targets) != 2 {
		t.Fatalf("got %d kinds and %d targets, want 3 and 2", len(f.Kinds), len(f.Targets))
	}
	email, llm, report := f.Kinds[0], f.Kinds[1], f.Kinds[2]
	if email.Downstream != "mailer" || email.Effect != mulligan.Keyed || email.Policy.Timeout != 5*time.Second {
		t.Errorf("email.send is %+v, want it keyed on mailer, an attempt bounded by http.timeout", email)
	}
	if llm.Downstream != "llm.example.org:8080" || llm.Policy.Attempts != 8 {
		t.Errorf("llm.complete is %+v, want it durable on its target's host", llm)
	}
	if report.Downstream != mulligan.DefaultDownstream || f.Targets["report.build"] != nil {
		t.Errorf("report.build is %+v, want it on the default downstream without a target", report)
	}
	target := f.Targets["email.send"]
	if target.URL != "http://127.0.0.1:9000/send" || target.Timeout != 5*time.Second || target.Headers["X-Team"] != "mail" {
		t.Errorf("the target of email.send is %q, %v, %v", target.URL, target.Timeout, target.Headers)
	}
	if got, want := f.Downstreams["mailer"], (consumer.Downstream{Concurrency: 16, Ratio: 0.2, Cap: 20, Floor: 2, Capacity: 100, Peak: 70}); got != want {
		t.Errorf("mailer is %+v, want %+v", got, want)
	}
	if got := f.Downstreams["default"].Concurrency; got != 4 {
		t.Errorf("default has a concurrency of %d, want 4", got)
	}
	if f.UserRate.PerSecond != 2.5 || f.UserRate.Burst != 20 || f.Topology.Prefix != "shop" || f.Topology.Replicas != 3 {
		t.Errorf("got rate %+v and topology %+v", f.UserRate, f.Topology)
	}
}

// kind is a file of one kind.
func kind(fields string) string { return "kinds:\n  a.b:\n    " + fields + "\n" }

// A mistake is a file that has one, and what is said of it.
type mistake struct{ name, file, want string }

func namesMistakes(t *testing.T, cases []mistake) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Parse([]byte(c.file))
			if err == nil {
				t.Fatalf("%q was read without an error, want %q", c.file, c.want)
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q\ngot  %q\nwant one line with %q", c.file, err, c.want)
			}
		})
	}
}

func TestAMistakeInTheFileIsNamed(t *testing.T) {
	namesMistakes(t, []mistake{
		{"an unknown key of the file", "kind: {}\n", `line 1 ("kind: {}"): unknown field "kind"`},
		{"an unknown key of a kind", kind("efect: pure"), `kind a.b: line 3 ("efect: pure"): unknown field "efect"`},
		{"an unknown key of a target", kind("{effect: pure, http: {uri: x}}"), `kind a.b: line 3`},
		{"an unknown key of a policy", kind("{effect: pure, policy: {tries: 3}}"), `unknown field "tries"`},
		{"a setting that is secret", "settings: {token: x}\n", `unknown field "token"`},
		{"a kind given twice", "kinds:\n  a: {effect: pure}\n  a: {effect: pure}\n", `"a" already defined`},
		{"no effect", kind("downstream: d"), "kind a.b has no effect"},
		{"an empty kind", "kinds:\n  a.b:\n", "kind a.b has no effect"},
		{"an unknown effect", kind("effect: twice"), `kind a.b has effect "twice" is not one of pure, keyed, once`},
		{"a name that is no kind's", "kinds:\n  a b: {effect: pure}\n", `"a b" is not dot-separated`},
		{"a target without a URL", kind("{effect: pure, http: {timeout: 1s}}"), "kind a.b: http has no url"},
		{"a URL that is relative", kind("{effect: pure, http: {url: /send}}"), `kind a.b: http url "/send"`},
		{"a duration without a unit", kind("{effect: pure, http: {url: 'http://a', timeout: 5}}"), `kind a.b: http.timeout "5" is not a duration`},
		{"a negative duration", kind("{effect: pure, policy: {total: -1s}}"), "kind a.b: policy: total -1s is negative"},
		{"negative attempts", kind("{effect: pure, policy: {attempts: -1}}"), "kind a.b: policy attempts -1"},
		{"attempts that are no number", kind("{effect: pure, policy: {attempts: x}}"), "kind a.b: policy: line 3"},
		{"an unknown policy", kind("{effect: pure, policy: hopeful}"), `kind a.b: policy: policy "hopeful" is not one of`},
		{"a policy that is a list", kind("{effect: pure, policy: [1]}"), "kind a.b: policy: line 3"},
		{"an effect that is a mapping", kind("effect: {a: b}"), `kind a.b: line 3 ("effect: {a: b}"): the value is not a single text`},
		{"a negative concurrency", kind("{effect: pure, http: {url: 'http://a', concurrency: -1}}"), "kind a.b: http.concurrency -1"},
		{"a header of ours", kind("{effect: pure, http: {url: 'http://a', headers: {Mulligan-Id: x}}}"), "kind a.b: http header Mulligan-Id"},
		{"a downstream that is no name", kind("{effect: pure, downstream: 'a b'}"), `kind a.b: downstream "a b"`},
		{"two concurrencies of one downstream", "kinds:\n  a: {effect: pure, http: {url: 'http://h/1', concurrency: 2}}\n  b: {effect: pure, http: {url: 'http://h/2', concurrency: 3}}\n",
			"kinds a and b share the downstream h but name different http.concurrency, 2 and 3"},
		{"a downstream that no kind belongs to", kind("{effect: pure, downstream: mailer}") + "downstreams: {mailr: {ratio: 0.2}}\n", `downstream "mailr": no kind of the file belongs to it; they belong to mailer`},
		{"an unknown key of a downstream", kind("{effect: pure}") + "downstreams: {default: {rate: 0.2}}\n", `downstream default: line 4`},
		{"a ratio of nothing", kind("{effect: pure}") + "downstreams: {default: {ratio: 0}}\n", "downstream default: ratio is 0; leave it out for the default"},
		{"a ratio that is no limit", kind("{effect: pure}") + "downstreams: {default: {ratio: 2}}\n", "ratio 2 is not over 0 and at most 1"},
		{"a negative capacity", kind("{effect: pure}") + "downstreams: {default: {capacity: -1}}\n", "capacity -1 or peak 0 per second is not between 0 and 1e+09"},
		{"a downstream without calls", kind("{effect: pure}") + "downstreams: {default: {concurrency: 0}}\n", "concurrency is 0; leave it out for the default of 16"},
		{"a concurrency here and there", "kinds:\n  a: {effect: pure, http: {url: 'http://h/1', concurrency: 2}}\ndownstreams: {h: {concurrency: 3}}\n", "downstream h: concurrency is 3 here and 2 as the http.concurrency"},
		{"a rate of nothing", "user_rate: {per_second: 0}\n", "user_rate.per_second is 0"},
		{"a burst of nothing", "user_rate: {burst: 0}\n", "user_rate.burst is 0"},
		{"a negative rate", "user_rate: {per_second: -1}\n", "user_rate: user rate of -1"},
		{"a prefix in capitals", "topology: {prefix: SHOP}\n", "topology: prefix"},
		{"too many replicas", "topology: {replicas: 7}\n", "topology: replicas 7"},
		{"a number that is too large", "topology: {replicas: 99999999999999999999}\n", "line 1"},
		{"two documents", "kinds: {}\n---\nkinds: {}\n", "more than one document"},
		{"no YAML", "kinds: [\n", "line 1"},
		{"a file that is too large", "#" + strings.Repeat("x", 1<<20), "the file is over 1048576 bytes"},
		{"aliases that double at each line", bomb("%[1]s%[2]d: &%[1]s%[2]d [*%[1]s%[3]d, *%[1]s%[3]d]\n"), "its aliases stand for more than 100000 entries"},
		{"merge keys that double at each line", bomb("%[1]s%[2]d: &%[1]s%[2]d {<<: [*%[1]s%[3]d, *%[1]s%[3]d]}\n"), "its aliases stand for more than 100000 entries"},
		{"a list within a hundred thousand lists", "kinds: " + strings.Repeat("[", 100_000), "line 1: nested deeper than 20"},
		{"a mapping within a hundred thousand mappings", "kinds: " + strings.Repeat("{a: ", 100_000), "line 1: nested deeper than 20"},
		{"lists without brackets", "kinds:\n" + strings.Repeat("- ", 100_000), "line 2: nested deeper than 20"},
		{"an endless effect", kind("effect: " + strings.Repeat("x", 10_000)), "kind a.b has effect"},
		{"no connections", "http: {max_connections: 0}\n", "http.max_connections 0 is not between 1 and 1000000; leave it out for the default"},
		{"negative requests", "http: {max_requests: -1}\n", "http.max_requests -1 is not between"},
		{"another type", "just text\n", "line 1"},
	})
}

func TestAZeroAndAFractionAreNamed(t *testing.T) {
	namesMistakes(t, []mistake{
		{"no attempts", kind("{effect: pure, policy: {attempts: 0}}"), "kind a.b: policy: attempts is 0; leave it out for the default of 4, or write 1 for no retry"},
		{"no time", kind("{effect: pure, policy: {total: 0s}}"), "kind a.b: policy: total is 0; leave it out for the default of 10s"},
		{"no first delay", kind("{effect: pure, policy: {first_delay: 0}}"), "kind a.b: policy: first_delay is 0; leave it out for the default of 100ms"},
		{"no longest delay", kind("{effect: pure, policy: {max_delay: 0s}}"), "kind a.b: policy: max_delay is 0; leave it out for the default of 10s"},
		{"no time for an attempt", kind("{effect: pure, policy: {timeout: 0s}}"), "kind a.b: policy: timeout is 0; leave it out for http.timeout, or else the total"},
		{"no time for a call", kind("{effect: pure, http: {url: 'http://a', timeout: 0ms}}"), "kind a.b: http.timeout is 0; leave it out for the default of 10s"},
		{"no calls at all", kind("{effect: pure, http: {url: 'http://a', concurrency: 0}}"), "kind a.b: http.concurrency is 0; leave it out for the default of 16"},
		{"a fraction of an attempt", kind("{effect: pure, policy: {attempts: 3.7}}"), "kind a.b: policy: line 3 (\"{effect: pure, policy: {attempts: 3.7}}\"): 3.7 is not a whole number"},
		{"a fraction in quotes", kind("{effect: pure, policy: {attempts: '3.7'}}"), "is not a whole number"},
		{"attempts without an end", kind("{effect: pure, policy: {attempts: -.inf}}"), "is not a whole number"},
		{"a fraction of a call", kind("{effect: pure, http: {url: 'http://a', concurrency: 1.5}}"), "kind a.b: line 3"},
		{"a fraction of a burst", "user_rate: {burst: 2.5}\n", "line 1 (\"user_rate: {burst: 2.5}\"): 2.5 is not a whole number"},
		{"a fraction of a replica", "topology: {replicas: 1.5}\n", "1.5 is not a whole number"},
		{"keys that nobody remembers", kind("{effect: keyed, key_ttl: 0s}"), "kind a.b: key_ttl is 0; leave it out for the default of 24h0m0s"},
		{"keys without a unit", kind("{effect: keyed, key_ttl: 24}"), `kind a.b: key_ttl "24" is not a duration`},
		{"no result at all", kind("{effect: once, max_result: 0KiB}"), "kind a.b: max_result is 0; leave it out for the default of 64KiB"},
		{"a result in another unit", kind("{effect: once, max_result: 64kb}"), `kind a.b: max_result "64kb" is not a number of bytes`},
		{"a negative result", kind("{effect: once, max_result: -1}"), `kind a.b: max_result "-1" is not a number of bytes`},
		{"half a byte", kind("{effect: once, max_result: 1.5}"), `kind a.b: max_result "1.5" is not a number of bytes`},
		{"a result beyond all bounds", kind("{effect: once, max_result: 4096MiB}"), "kind a.b: max_result 4096MiB is more"},
		{"results that are maybe kept", kind("{effect: pure, keep_results: often}"), "kind a.b: line 3"},
	})
}

func TestAKindSaysWhatIsKeptOfIt(t *testing.T) {
	f, err := config.Parse([]byte("kinds:\n  a: {effect: once, max_result: 64KiB}\n  b: {effect: keyed, key_ttl: 72h, max_result: 1000}\n  c: {effect: pure, keep_results: true, max_result: 1 MiB, policy: {attempts: 1e1}}\n  d: {effect: pure, key_ttl: null, max_result: null, policy: {attempts: null}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, b, c, d := f.Kinds[0], f.Kinds[1], f.Kinds[2], f.Kinds[3]
	if a.Effect != mulligan.Once || a.MaxResult != 64<<10 {
		t.Errorf("a is %+v, want it once, with results of 64 KiB", a)
	}
	if b.KeyTTL != 72*time.Hour || b.MaxResult != 1000 {
		t.Errorf("b is %+v, want its keys remembered for 72h, and results of 1,000 bytes", b)
	}
	if !c.KeepResults || c.MaxResult != 1<<20 || c.Policy.Attempts != 10 {
		t.Errorf("c is %+v, want its results kept, up to 1 MiB", c)
	}
	if d.KeyTTL != 0 || d.KeepResults || d.MaxResult != mulligan.DefaultMaxResult || d.Policy.Attempts != 4 {
		t.Errorf("d is %+v, want the defaults", d)
	}
}

func TestAnEmptyFileSaysNothing(t *testing.T) {
	for _, file := range []string{"", "# nothing\n", "kinds:\n", "kinds: {}\n"} {
		if f, err := config.Parse([]byte(file)); err != nil || len(f.Kinds) != 0 {
			t.Errorf("%q gave %d kinds and %v", file, len(f.Kinds), err)
		}
	}
}

func TestTheEnvironmentGoesOverTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mulligan.yaml")
	if err := os.WriteFile(path, []byte("settings: {data: from-file, log_level: warn, sync: 2s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load([]string{"MULLIGAN_CONFIG=" + path, "MULLIGAN_LOG_LEVEL=debug", "MULLIGAN_SYNC="}, "")
	if err != nil {
		t.Fatal(err)
	}
	s := c.Settings
	if s.Data != "from-file" || s.LogLevel != "debug" || s.Sync != "2s" || s.NATSListen != config.DefaultNATSListen || s.HTTP != "" {
		t.Errorf("got %+v", s)
	}
}

func TestASettingThatMakesNoSenseIsNamed(t *testing.T) {
	for _, c := range []struct{ name, env, want string }{
		{"a level", "MULLIGAN_LOG_LEVEL=loud", "MULLIGAN_LOG_LEVEL"},
		{"a format", "MULLIGAN_LOG_FORMAT=xml", "MULLIGAN_LOG_FORMAT"},
		{"a sync", "MULLIGAN_SYNC=never", "MULLIGAN_SYNC"},
		{"a negative sync", "MULLIGAN_SYNC=-1s", "MULLIGAN_SYNC"},
		{"an address without a port", "MULLIGAN_HTTP=localhost", "MULLIGAN_HTTP"},
		{"a port that is too high", "MULLIGAN_HTTP=127.0.0.1:99999", "MULLIGAN_HTTP"},
		{"a public address without a token", "MULLIGAN_HTTP=:8090", "set MULLIGAN_TOKEN"},
		{"a public NATS address without a token", "MULLIGAN_NATS_LISTEN=0.0.0.0:4222", "set MULLIGAN_TOKEN"},
		{"a URL without a host", "NATS_URL=nats://", "NATS_URL"},
		{"a file that is not there", "MULLIGAN_CONFIG=/nowhere/mulligan.yaml", "config file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Load([]string{c.env}, "")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s gave %v, want an error with %q", c.env, err, c.want)
			}
		})
	}
	if _, err := config.Load([]string{"MULLIGAN_HTTP=:8090", "MULLIGAN_TOKEN=secret"}, ""); err != nil {
		t.Errorf("a public address with a token is refused: %v", err)
	}
}

func TestASettingOfTheFileThatMakesNoSenseIsNamedByItsKey(t *testing.T) {
	for _, c := range []struct{ name, setting, env, want string }{
		{"a level", "log_level: loud", "", `mulligan.yaml: settings.log_level "loud" is not one of debug`},
		{"a format", "log_format: xml", "", "mulligan.yaml: settings.log_format"},
		{"a sync", "sync: never", "", "mulligan.yaml: settings.sync"},
		{"an address", "http: localhost", "", "mulligan.yaml: settings.http"},
		{"a public address without a token", `nats_listen: "0.0.0.0:4222"`, "", "mulligan.yaml: settings.nats_listen 0.0.0.0:4222 is not a loopback address"},
		{"a URL", `nats_url: "nats://"`, "", "mulligan.yaml: settings.nats_url"},
		{"a variable over the file", "log_level: warn", "MULLIGAN_LOG_LEVEL=loud", "MULLIGAN_LOG_LEVEL"},
		{"a variable that mends the file", "log_level: loud", "MULLIGAN_LOG_LEVEL=warn", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "mulligan.yaml")
			if err := os.WriteFile(path, []byte("settings: {"+c.setting+"}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := config.Load([]string{c.env}, path)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s with %q gave %v, want %q", c.setting, c.env, err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("kinds: {a: {effect: pure, policy: {attempts: 1e9}}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("kinds: {\"a\\nb\": {effect: pure}}\ndownstreams: {\"\\u001b\": {}}"))
	f.Add([]byte("http: {max_requests: 1e3}\nkinds: {a: {effect: pure}}\ndownstreams: {\"\\u001b\": {}}"))
	f.Add([]byte("\"\\u001b[2J\": 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := config.Parse(b)
		if err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) || len(err.Error()) > 1500 {
				t.Errorf("not one line, or a long one: %q", err)
			}
			return
		}
		for _, k := range file.Kinds {
			if n, err := k.Normal(); err != nil || n != k {
				t.Errorf("kind %+v is not normal: %v", k, err)
			}
		}
	})
}
