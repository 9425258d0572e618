package call_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/mulligan-queue/mulligan/internal/call"
)

var errAway = errors.New("away")

func TestAHookIsToldBeforeAndAfterEveryCall(t *testing.T) {
	var points []string
	ctx := call.With(t.Context(), func(point string) { points = append(points, point) })
	n, err := call.Do(ctx, "park.publish", func() (int, error) {
		points = append(points, "the call itself")
		return 7, errAway
	})
	if n != 7 || !errors.Is(err, errAway) {
		t.Errorf("got %d, %v; want what the call answered", n, err)
	}
	if err := call.Err(ctx, "park.ack", func() error { return errAway }); !errors.Is(err, errAway) {
		t.Errorf("got %v, want what the call answered", err)
	}
	want := []string{"park.publish before", "the call itself", "park.publish after", "park.ack before", "park.ack after"}
	if !slices.Equal(points, want) {
		t.Errorf("got %q, want %q", points, want)
	}
}

func TestACallWithoutAHookIsMade(t *testing.T) {
	n, err := call.Do(t.Context(), "ack", func() (int, error) { return 7, nil })
	if n != 7 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestAHookIsHandedOnToDerivedContexts(t *testing.T) {
	told := 0
	ctx, cancel := context.WithCancel(call.With(t.Context(), func(string) { told++ }))
	defer cancel()
	if err := call.Err(context.WithoutCancel(ctx), "ack", func() error { return nil }); err != nil || told != 2 {
		t.Errorf("it was told %d points, %v; want 2", told, err)
	}
}

func TestAHookMayEndTheGoroutineBeforeTheCall(t *testing.T) {
	made := false
	ctx := call.With(t.Context(), func(string) { runtime.Goexit() })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = call.Err(ctx, "ack", func() error { made = true; return nil })
		t.Error("the goroutine went on")
	}()
	if <-ended; made {
		t.Error("the call was made")
	}
}
