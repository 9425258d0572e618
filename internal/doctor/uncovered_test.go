package doctor

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// about returns the findings of a check, those that are well too.
func about(t *testing.T, e *natstest.Env, check string) []Finding {
	t.Helper()
	found, err := Doctor{Conn: e.Conn}.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(found, func(f Finding) bool { return f.Check != check })
}

func put(t *testing.T, e *natstest.Env, subjects ...string) {
	t.Helper()
	for _, s := range subjects {
		if _, err := e.JS.Publish(t.Context(), s, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMessagesThatNoConsumerDeliversAreFound(t *testing.T) {
	e := installed(t, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}, mulligan.Kind{Name: "llm", Effect: mulligan.Pure, Downstream: "llm"})
	put(t, e, "mulligan.jobs.email.send.1", "mulligan.jobs.email.send.2", "mulligan.jobs.llm.1")
	if found := about(t, e, "stray messages"); len(found) != 1 || found[0].Status != OK {
		t.Errorf("jobs that wait for a worker: %+v, want nothing wrong", found)
	}
	put(t, e, "mulligan.jobs.emial.send.1", "mulligan.jobs.email.send")
	found := about(t, e, "stray messages")
	if len(found) != 1 || found[0].Status != Warn || found[0].Do == "" ||
		!strings.Contains(found[0].Detail, `no consumer delivers 2 subjects in MULLIGAN_JOBS, such as "mulligan.jobs.email.send", "mulligan.jobs.emial.send.1"`) {
		t.Errorf("a typing error and a missing ID: %+v, want both named", found)
	}
	for i := range 10 {
		put(t, e, fmt.Sprintf("mulligan.jobs.typo.%d", i))
	}
	if found := about(t, e, "stray messages"); len(found) != 1 || !strings.Contains(found[0].Detail, "12 subjects") || strings.Count(found[0].Detail, `"mulligan.jobs.`) != 5 {
		t.Errorf("many: %+v, want their number and five of them", found)
	}
}

func TestAFilterCoversItsSubjects(t *testing.T) {
	for _, c := range []struct {
		filter, subject string
		want            bool
	}{
		{"j.a.*", "j.a.1", true}, {"j.a.*", "j.a", false}, {"j.a.*", "j.a.b.1", false}, {"j.a.*", "j.b.1", false},
		{"j.>", "j.a.b", true}, {"j.>", "j", false}, {"j.a", "j.a", true}, {"j.a", "j.a.b", false},
	} {
		if got := covers(c.filter, c.subject); got != c.want {
			t.Errorf("%s covers %s: %v", c.filter, c.subject, got)
		}
	}
}

func TestAWorkerThatDeclaresAKindDifferentlyIsNamed(t *testing.T) {
	e := installed(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	w := &consumer.Worker{Conn: e.Conn}
	for _, k := range []mulligan.Kind{{Name: "email.send", Effect: mulligan.Keyed}, {Name: "llm.complete", Effect: mulligan.Pure}, {Name: "report.build", Effect: mulligan.Pure}} {
		w.Handle(k, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }))
	}
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for {
		if found := about(t, e, "declarations"); len(found) == 1 && found[0].Status == OK {
			break // each visit waits for answers, so this takes its time
		}
		if t.Context().Err() != nil {
			t.Fatal("the worker does not announce itself")
		}
	}
	other := []mulligan.Kind{{Name: "email.send", Effect: mulligan.Once}, {Name: "llm.complete", Effect: mulligan.Pure, Policy: mulligan.DurablePolicy()}}
	if _, err := topology.Declare(t.Context(), e.JS, other); err != nil {
		t.Fatal(err)
	}
	found := about(t, e, "declarations")
	if len(found) != 2 || found[0].Status != Warn || found[0].Do == "" {
		t.Fatalf("found %+v, want a warning for each of two kinds", found)
	}
	pid := fmt.Sprint("/", os.Getpid())
	for i, want := range []string{"kind email.send is declared differently by worker ", "kind llm.complete is declared differently by worker "} {
		if !strings.HasPrefix(found[i].Detail, want) || !strings.Contains(found[i].Detail, pid+" than in the bucket: effect ") {
			t.Errorf("found %q, want %q and %s", found[i].Detail, want, pid)
		}
	}
	if !strings.Contains(found[0].Detail, "effect keyed there, once in the bucket") || !strings.Contains(found[1].Detail, "effect pure in both") {
		t.Errorf("found %q and %q", found[0].Detail, found[1].Detail)
	}
}
