package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mulligan-queue/mulligan/internal/storm"
)

func TestTheReadmesPictureIsWhatStormDraws(t *testing.T) {
	const kept = "../../internal/storm/storm.svg"
	drawn := filepath.Join(t.TempDir(), "storm.svg")
	if c := call(t, "", "storm", "--svg", drawn); c.code != exitDone {
		t.Fatalf("exit %d: %s", c.code, c.err)
	}
	got, err := os.ReadFile(drawn)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(kept); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what it draws (%v); if that is right: go run ./cmd/mulligan storm --svg internal/storm/storm.svg", kept, err)
	}
}

func TestStormShowsEachPolicyWithAndWithoutJSON(t *testing.T) {
	for _, name := range []string{"standard", "poison"} {
		text := call(t, "", "storm", "--case", name, "--load", "0.2", "--seed", "3")
		reports := decoded[[]storm.Report](t, call(t, "", "storm", "--case", name, "--load", "0.2", "--seed", "3", "--json"))
		if len(reports) < len(storm.Policies()) {
			t.Fatalf("%s: %d reports", name, len(reports))
		}
		for i, p := range storm.Policies() {
			if text.code != exitDone || !strings.Contains(text.out, p.Name) || reports[i].Policy != p.Name || len(reports[i].Seconds) != 150 {
				t.Errorf("%s: exit %d, policy %q is not there in\n%s\nor not in %+v", name, text.code, p.Name, text.out, reports[i])
			}
		}
	}
}

func TestStormShowsAPhaseDiagram(t *testing.T) {
	c := call(t, "", "storm", "--case", "phase")
	if c.code != exitDone || !strings.Contains(c.out, "90 %") || !strings.Contains(c.out, "never") || strings.Count(c.out, "\n") != 11 {
		t.Errorf("exit %d, want nine loads and that some policies never recover:\n%s", c.code, c.out)
	}
}
