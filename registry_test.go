package mulligan_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// learned is what a watch has told.
type learned struct {
	mu    sync.Mutex
	kinds map[string]*mulligan.Kind
	bad   map[string]error
}

func (l *learned) note(name string, k *mulligan.Kind, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds == nil {
		l.kinds, l.bad = map[string]*mulligan.Kind{}, map[string]error{}
	}
	l.kinds[name], l.bad[name] = k, err
}

func (l *learned) effect(name string) mulligan.Effect {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.kinds[name]; k != nil {
		return k.Effect
	}
	return ""
}

func TestAWatchTellsWhatEachKindIsAndBecomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		var topology mulligan.Topology
		declare := func(effect mulligan.Effect) []mulligan.Kind {
			t.Helper()
			differed, err := topology.Declare(t.Context(), e.JS, []mulligan.Kind{{Name: "a.b", Effect: effect}})
			if err != nil {
				t.Fatal(err)
			}
			return differed
		}
		declare(mulligan.Pure)
		var l learned
		stop, err := topology.WatchKinds(t.Context(), e.JS, l.note)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.effect("a.b"); got != mulligan.Pure {
			t.Errorf("at once it is %q, want what was declared before", got)
		}
		if differed := declare(mulligan.Keyed); len(differed) != 1 || differed[0].Effect != mulligan.Pure {
			t.Errorf("declared anew, it differed from %+v", differed)
		}
		time.Sleep(time.Second)
		if got := l.effect("a.b"); got != mulligan.Keyed {
			t.Errorf("declared anew it is %q", got)
		}
		e.Restart(t)
		time.Sleep(30 * time.Second)
		declare(mulligan.Once)
		time.Sleep(time.Second)
		if got := l.effect("a.b"); got != mulligan.Once {
			t.Errorf("after a restart of the server it is %q", got)
		}
		kv, err := e.JS.KeyValue(t.Context(), topology.KindsBucket())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), "c", []byte("garbage")); err != nil {
			t.Fatal(err)
		}
		if err := kv.Delete(t.Context(), "a.b"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := l.effect("a.b"); got != "" || l.bad["c"] == nil {
			t.Errorf("taken away it is %q; of garbage it says %v", got, l.bad["c"])
		}
		stop()
		declare(mulligan.Pure)
		time.Sleep(time.Second)
		if got := l.effect("a.b"); got != "" {
			t.Errorf("a watch that was stopped told %q", got)
		}
	})
}

func TestAPublisherGoesByWhatWorkersDeclare(t *testing.T) {
	for _, tt := range []struct {
		name          string
		own, declared mulligan.Effect
		id            string
		want          error
	}{
		{"a kind of its own that nobody serves yet is published", mulligan.Keyed, "", "1", nil},
		{"a kind that a worker declared is published", "", mulligan.Pure, "", nil},
		{"a kind that nobody declared is not", "", "", "1", mulligan.ErrUnknownKind},
		{"a declared side effect needs an ID", "", mulligan.Once, "", mulligan.ErrNoKey},
		{"also where the publisher believes that it is pure", mulligan.Pure, mulligan.Keyed, "", mulligan.ErrNoKey},
		{"also where only the publisher knows of it", mulligan.Keyed, mulligan.Pure, "", mulligan.ErrNoKey},
		{"with an ID it is published", mulligan.Pure, mulligan.Once, "1", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := natstest.Server(t)
			e.Provision(t, mulligan.Topology{})
			if tt.declared != "" {
				if _, err := (mulligan.Topology{}).Declare(t.Context(), e.JS, []mulligan.Kind{{Name: "a.b", Effect: tt.declared}}); err != nil {
					t.Fatal(err)
				}
			}
			p := &mulligan.Publisher{Conn: e.Conn}
			if tt.own != "" {
				p.Kinds = []mulligan.Kind{{Name: "a.b", Effect: tt.own}}
			}
			if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "a.b", ID: tt.id}); !errors.Is(err, tt.want) {
				t.Errorf("publish: %v, want %v", err, tt.want)
			}
		})
	}
}

func TestAKindIsStoredAsItIs(t *testing.T) {
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	want, err := mulligan.Kind{Name: "a.b", Effect: mulligan.Keyed, KeyTTL: 90 * time.Minute, MaxResult: 1 << 10, Policy: mulligan.DurablePolicy()}.Normal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (mulligan.Topology{}).Declare(t.Context(), e.JS, []mulligan.Kind{want}); err != nil {
		t.Fatal(err)
	}
	if got, err := (mulligan.Topology{}).Kinds(t.Context(), e.JS); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	kv, err := e.JS.KeyValue(t.Context(), mulligan.Topology{}.KindsBucket())
	if err != nil {
		t.Fatal(err)
	}
	// As the first version wrote it: it knew no more.
	old := `{"name":"a.b","effect":"keyed","policy":{"attempts":4,"total":"10s","first_delay":"100ms","max_delay":"10s","timeout":"10s"},"downstream":"default"}`
	if _, err := kv.PutString(t.Context(), "a.b", old); err != nil {
		t.Fatal(err)
	}
	if differed, err := (mulligan.Topology{}).Declare(t.Context(), e.JS, []mulligan.Kind{{Name: "a.b", Effect: mulligan.Keyed}}); err != nil || len(differed) != 0 {
		t.Errorf("the same declaration by an older program differs: %+v, %v", differed, err)
	}
}

func TestAStepsKeyIsShortAndItsOwn(t *testing.T) {
	keys := map[string]string{}
	for _, kind := range []string{"a", "a.b", strings.Repeat("k", 128)} {
		for _, id := range []string{"1", "1/charge", "ü", strings.Repeat("x", 255), strings.Repeat("x", 254) + "y"} {
			for _, step := range []string{"charge", "mail", strings.Repeat("s", 48)} {
				key := (&mulligan.Job{Kind: kind, ID: id}).StepKey(step)
				if len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("%s %s %s has the key %q of %d bytes", kind, id, step, key, len(key))
				}
				if other, taken := keys[key]; taken {
					t.Errorf("%s %s %s has the key of %s", kind, id, step, other)
				}
				keys[key] = kind + " " + id + " " + step
			}
		}
	}
}

func TestAKindDeclaredInABucketThatWasMadeAgainIsFound(t *testing.T) {
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	p := &mulligan.Publisher{Conn: e.Conn}
	if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "a.b", ID: "1"}); !errors.Is(err, mulligan.ErrUnknownKind) {
		t.Fatal(err)
	}
	if err := e.JS.DeleteKeyValue(t.Context(), mulligan.Topology{}.KindsBucket()); err != nil {
		t.Fatal(err)
	}
	e.Provision(t, mulligan.Topology{})
	if _, err := (mulligan.Topology{}).Declare(t.Context(), e.JS, []mulligan.Kind{{Name: "a.b", Effect: mulligan.Keyed}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "a.b"}); !errors.Is(err, mulligan.ErrNoKey) {
		t.Errorf("without an ID: %v, want what the kind asks for", err)
	}
	if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "a.b", ID: "1"}); err != nil {
		t.Error(err)
	}
}
