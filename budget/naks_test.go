package budget

import (
	"testing"
	"time"
)

func TestNaksAreBounded(t *testing.T) {
	in := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	t.Run("no more naks wait than there is room for", func(t *testing.T) {
		var n NakRoom
		took := 0
		for i := range 2 * maxNaksWaiting {
			if n.Take(in(i*10), in(100_000)) {
				took++
			}
		}
		if took != maxNaksWaiting || n.Waiting(in(3000)) != maxNaksWaiting {
			t.Errorf("%d taken, %d waiting, want %d", took, n.Waiting(in(3000)), maxNaksWaiting)
		}
		if n.Take(in(100_000), in(100_100)) != true {
			t.Error("no room once they were due")
		}
	})
	t.Run("a place given back is free", func(t *testing.T) {
		var n NakRoom
		for range maxNaksWaiting {
			n.Take(in(0), in(1000))
		}
		n.Back(in(1000))
		if !n.Take(in(0), in(1000)) || n.Take(in(0), in(1000)) {
			t.Error("want exactly one place")
		}
	})
}
