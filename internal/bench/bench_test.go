package bench

import (
	"slices"
	"testing"
)

func TestAGoalIsMet(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    Figure
		want bool
	}{
		{"no goal", Figure{Ratio: 0.1}, true},
		{"as fast", Figure{Measure: Measure{Goal: 0.95}, Ratio: 0.95}, true},
		{"slower", Figure{Measure: Measure{Goal: 0.95}, Ratio: 0.94}, false},
		{"no dearer", Figure{Measure: Measure{Goal: 1.1, AtMost: true}, Ratio: 1.1}, true},
		{"dearer", Figure{Measure: Measure{Goal: 1.1, AtMost: true}, Ratio: 1.2}, false},
		{"in time, whatever the other takes", Figure{Measure: Measure{Goal: 6, AtMost: true, Alone: true}, Ours: 5, Ratio: 9}, true},
		{"a few more", Figure{Measure: Measure{Goal: 10, AtMost: true, Over: true}, Bare: 20, Ours: 30}, true},
		{"many more", Figure{Measure: Measure{Goal: 10, AtMost: true, Over: true}, Bare: 20, Ours: 31}, false},
		{"too late", Figure{Measure: Measure{Goal: 6, AtMost: true, Alone: true}, Ours: 7, Ratio: 0.5}, false},
	} {
		if got := tt.f.Met(); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(tt.of); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.of, got, tt.want)
		}
	}
}

func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	var names []string
	for _, c := range slices.Concat(Cases(), Growth()) {
		if slices.Contains(names, c.Name) || c.About == "" || len(c.Measures) == 0 {
			t.Errorf("case %q is there twice, or does not say what it is", c.Name)
		}
		names = append(names, c.Name)
	}
}
