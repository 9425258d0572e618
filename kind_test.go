package mulligan_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func TestKindNormal(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind mulligan.Kind
		err  string // empty: it is a good kind
	}{
		{"a pure kind needs nothing more", mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}, ""},
		{"a keyed kind needs nothing more", mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}, ""},
		{"a name may be one token", mulligan.Kind{Name: "A-b_9", Effect: mulligan.Pure}, ""},
		{"the longest name is allowed", mulligan.Kind{Name: strings.Repeat("a", 128), Effect: mulligan.Pure}, ""},
		{"a downstream may be a host and port", mulligan.Kind{Name: "a", Effect: mulligan.Pure, Downstream: "127.0.0.1:9000"}, ""},
		{"a kind without a name is refused", mulligan.Kind{Effect: mulligan.Pure}, "dot-separated"},
		{"a name over the limit is refused", mulligan.Kind{Name: strings.Repeat("a", 129), Effect: mulligan.Pure}, "128"},
		{"an empty token is refused", mulligan.Kind{Name: "a..b", Effect: mulligan.Pure}, "dot-separated"},
		{"a dot at the end is refused", mulligan.Kind{Name: "a.", Effect: mulligan.Pure}, "dot-separated"},
		{"a wildcard is refused", mulligan.Kind{Name: "a.*", Effect: mulligan.Pure}, "dot-separated"},
		{"a full wildcard is refused", mulligan.Kind{Name: "a.>", Effect: mulligan.Pure}, "dot-separated"},
		{"white space is refused", mulligan.Kind{Name: "a b", Effect: mulligan.Pure}, "dot-separated"},
		{"a line end is refused", mulligan.Kind{Name: "a\n", Effect: mulligan.Pure}, "dot-separated"},
		{"a kind without an effect is refused", mulligan.Kind{Name: "a"}, "pure, keyed or once"},
		{"an unknown effect is refused", mulligan.Kind{Name: "a", Effect: "twice"}, "pure, keyed"},
		{"a downstream with white space is refused", mulligan.Kind{Name: "a", Effect: mulligan.Pure, Downstream: "the mailer"}, "downstream"},
		{"a downstream that is too long is refused", mulligan.Kind{Name: "a", Effect: mulligan.Pure, Downstream: strings.Repeat("d", 65)}, "downstream"},
		{"a limitless policy is refused", mulligan.Kind{Name: "a", Effect: mulligan.Pure, Policy: mulligan.Policy{Attempts: -1}}, "attempts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.kind.Normal()
			if tt.err != "" {
				if !errors.Is(err, mulligan.ErrBadKind) || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("Normal() of %+v: got error %v, want one line of ErrBadKind with %q", tt.kind, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("Normal() of %+v: %v", tt.kind, err)
			}
			if got.Downstream == "" || got.Policy.Attempts == 0 || got.Policy.Timeout == 0 {
				t.Errorf("Normal() of %+v = %+v, want every default filled in", tt.kind, got)
			}
			if again, err := got.Normal(); err != nil || again != got {
				t.Errorf("Normal() of a normal kind = %+v, %v; want %+v", again, err, got)
			}
		})
	}
}

func TestOnlyAKeyedJobNeedsAnID(t *testing.T) {
	if mulligan.Pure.NeedsID() || !mulligan.Keyed.NeedsID() {
		t.Errorf("NeedsID: pure %v, keyed %v; want false, true", mulligan.Pure.NeedsID(), mulligan.Keyed.NeedsID())
	}
}

func TestDurableNamesOfDownstreamsDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, d := range []string{"default", "a.b", "a-b", "a_b", "a:b", "a_2Eb", "a__2Eb", "A.b", "127.0.0.1:9000", "127_0_0_1_9000", "_scheduler", "default_deferred", "default_5Fdeferred"} {
		name := mulligan.DurableName(d)
		if strings.ContainsAny(name, ".*> /\\") {
			t.Errorf("DurableName(%q) = %q, which no consumer may be called", d, name)
		}
		if other, taken := seen[name]; taken {
			t.Errorf("downstreams %q and %q share the consumer %q", d, other, name)
		}
		if name == mulligan.SchedulerConsumer {
			t.Errorf("downstream %q takes the schedulers' consumer", d)
		}
		seen[name] = d
		deferred := mulligan.Topology{}.DeferredQueue(d).Durable
		if other, taken := seen[deferred]; taken {
			t.Errorf("the deferred jobs of downstream %q and downstream %q share the consumer %q", d, other, deferred)
		}
		seen[deferred] = d
	}
}

func TestReasonsAreAClosedSet(t *testing.T) {
	for _, r := range mulligan.SpentReasons() {
		if !r.Valid() {
			t.Errorf("reason %q of the set is not valid", r)
		}
	}
	for _, r := range []mulligan.Reason{"", "bored", mulligan.Snoozed, mulligan.InProgress, mulligan.NotYet} {
		if r.Valid() {
			t.Errorf("%q is valid as a reason for which a job is spent", r)
		}
	}
}

func TestAFingerprintTellsDeclarationsApart(t *testing.T) {
	a := mulligan.Kind{Name: "a.b", Effect: mulligan.Keyed}
	n, err := a.Normal()
	if err != nil {
		t.Fatal(err)
	}
	if a.Fingerprint() != n.Fingerprint() || len(a.Fingerprint()) != 12 {
		t.Errorf("with and without its defaults a kind is %q and %q", a.Fingerprint(), n.Fingerprint())
	}
	for _, change := range []func(k *mulligan.Kind){
		func(k *mulligan.Kind) { k.Effect = mulligan.Once }, func(k *mulligan.Kind) { k.Downstream = "d" }, func(k *mulligan.Kind) { k.Policy.Attempts = 2 },
		func(k *mulligan.Kind) { k.KeyTTL = time.Hour }, func(k *mulligan.Kind) { k.KeepResults = true }, func(k *mulligan.Kind) { k.MaxResult = 1 },
	} {
		other := a
		if change(&other); other.Fingerprint() == a.Fingerprint() {
			t.Errorf("%+v has the fingerprint of %+v", other, a)
		}
	}
}
