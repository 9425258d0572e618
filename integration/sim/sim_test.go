package sim

import (
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

func TestSimulation(t *testing.T) {
	tries := 1
	rapid.Check(t, func(rt *rapid.T) {
		s := scenarios().Draw(rt, "scenario")
		for range tries {
			var told *story
			synctest.Test(t, func(t *testing.T) { told = live(t, s) })
			found := told.violations()
			if len(found) == 0 {
				continue
			}
			if tries == 1 { // it may not happen again: who goes first is not drawn
				t.Logf("the first time:\n%#v\n%s\n%s", s, told, found)
			}
			tries = 4
			rt.Logf("%s\n%s", told, found)
			rt.Fatalf("%s is broken", found[0].rule)
		}
	})
}
