package main

import (
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestKindsShowWhatIsNotTheDefault(t *testing.T) {
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	declared := []mulligan.Kind{
		{Name: "card.charge", Effect: mulligan.Keyed, KeyTTL: 48 * time.Hour},
		{Name: "llm.complete", Effect: mulligan.Pure, KeepResults: true, MaxResult: 128 << 10},
		{Name: "mail.send", Effect: mulligan.Once},
		{Name: "order.place", Effect: mulligan.Keyed},
	}
	if _, err := e.Topology.Declare(t.Context(), e.JS, declared); err != nil {
		t.Fatal(err)
	}
	c := call(t, "", "kinds", "--server", e.URL)
	for _, want := range []string{"once", "key_ttl 48h0m0s", "keep_results, max_result 131072"} {
		if c.code != exitDone || strings.Count(c.out, want) != 1 {
			t.Errorf("exit %d, %q is not there once in\n%s", c.code, want, c.out)
		}
	}
	views := decoded[[]kindView](t, call(t, "", "kinds", "--server", e.URL, "--json"))
	if len(views) != 4 || views[0].KeyTTL != "48h0m0s" || !views[1].KeepResults || views[2].Effect != mulligan.Once || views[3].MaxResult != mulligan.DefaultMaxResult || views[3].Workers == nil {
		t.Errorf("in JSON the kinds are %+v", views)
	}
}
