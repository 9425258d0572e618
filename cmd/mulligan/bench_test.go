package main

import (
	"strings"
	"testing"

	"github.com/mulligan-queue/mulligan/internal/bench"
)

func TestBenchListsItsCases(t *testing.T) {
	text := call(t, "", "bench", "--list")
	listed := decoded[[]bench.Case](t, call(t, "", "bench", "--list", "--json"))
	if len(listed) != len(bench.Cases()) {
		t.Errorf("%d cases as JSON, want %d", len(listed), len(bench.Cases()))
	}
	for _, c := range bench.Cases() {
		if text.code != exitDone || !strings.Contains(text.out, c.Name) {
			t.Errorf("exit %d, %s is not in\n%s", text.code, c.Name, text.out)
		}
	}
}

func TestBenchRefusesWhatItCannotMeasure(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"nothing"}, "no case \"nothing\""},
		{[]string{"--rounds", "0"}, "--rounds 0"},
		{[]string{"--sync", "soon"}, "neither always nor a duration"},
	} {
		c := call(t, "", append([]string{"bench"}, tt.args...)...)
		if c.code != exitUsage || !strings.Contains(c.err, tt.want) {
			t.Errorf("%v: exit %d, %s", tt.args, c.code, c.err)
		}
	}
}
