package integration

import (
	"testing"

	"github.com/mulligan-queue/mulligan/internal/bench"
)

// One round of some cases: what they measure is told, not how much it is.
func TestBenchMeasuresBothSides(t *testing.T) {
	t.Parallel()
	names := []string{"publish-1", "consume-16-256B", "keyed", "once", "http"}
	// A goal that was missed is no matter here.
	run := decode[struct {
		Results []bench.Result `json:"results"`
	}](t, answer(t, append([]string{"bench", "--json", "--rounds", "1"}, names...)...))
	if len(run.Results) != len(names) {
		t.Fatalf("%d results, want %d", len(run.Results), len(names))
	}
	for i, r := range run.Results {
		if r.Case != names[i] || r.Rounds != 1 || len(r.Figures) == 0 {
			t.Errorf("got %+v, want that of %s", r, names[i])
		}
		for _, f := range r.Figures {
			if f.Bare <= 0 || f.Ours <= 0 || f.Ratio <= 0 && !f.Over {
				t.Errorf("%s: %+v, want figures of both", r.Case, f)
			}
		}
	}
}
