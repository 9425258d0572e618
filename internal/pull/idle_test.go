package pull_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/pull"
)

func TestAPullThatFollowsAnEmptyOneAsksForOneJobAndIsPatient(t *testing.T) {
	b := newBench(t)
	if got, err := b.each(t, 3, brief); err != nil || len(got) != 0 {
		t.Fatalf("there is none: got %v, %v", got, err)
	}
	began := time.Now()
	if got, err := b.each(t, 3, brief); err != nil || len(got) != 0 {
		t.Errorf("there is still none: got %v, %v", got, err)
	}
	if took := time.Since(began); took < pull.Patience*brief {
		t.Errorf("an idle pull waited %v, want %v", took, pull.Patience*brief)
	}
	b.put(t, "a", "b", "c")
	if got, err := b.each(t, 3, long); err != nil || !slices.Equal(got, []string{"job.a"}) {
		t.Errorf("an idle pull: got %v, %v; want one job", got, err)
	}
	if got, err := b.each(t, 2, long); err != nil || !slices.Equal(got, []string{"job.b", "job.c"}) {
		t.Errorf("the next: got %v, %v; want the two others", got, err)
	}
}

func TestPullsShareASubscription(t *testing.T) {
	b := newBench(t)
	b.put(t, "a", "b", "c")
	before := b.Conn.NumSubscriptions()
	for range 3 {
		if got, err := b.each(t, 1, long); err != nil || len(got) != 1 {
			t.Errorf("got %v, %v; want a job", got, err)
		}
		if n := b.Conn.NumSubscriptions() - before; n != 1 {
			t.Errorf("%d subscriptions between two pulls, want 1", n)
		}
	}
	b.Close()
	if n := b.Conn.NumSubscriptions() - before; n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

func TestAnIdlePullThatIsCutShortStrandsNothing(t *testing.T) {
	b := newBench(t)
	began := time.Now()
	for i := range 10 {
		if len(b.idle(t)) != 0 {
			t.Fatal("a job, and all were acknowledged")
		}
		ctx, cut := context.WithCancel(t.Context())
		ended := make(chan error)
		got := 0
		go func() {
			ended <- b.Each(ctx, 3, long, func(m *nats.Msg) {
				got++
				if err := m.Nak(); err != nil {
					t.Error(err)
				}
			})
		}()
		put := make(chan struct{})
		go func() {
			defer close(put)
			b.put(t, fmt.Sprint(i))
		}()
		cut()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) || got == 0 && err == nil {
			t.Errorf("got %d jobs, %v", got, err)
		}
		<-put
		if got, err := b.each(t, 1, long); err != nil || len(got) != 1 {
			t.Errorf("the next pull: got %v, %v; want the job", got, err)
		}
	}
	soon(t, began)
}

// idle pulls in vain, so that the next pull is idle.
func (b *bench) idle(t *testing.T) []string {
	t.Helper()
	got, err := b.each(t, 1, brief/10)
	if err != nil {
		t.Error(err)
	}
	return got
}

func TestABusyPullIsNotCutShort(t *testing.T) {
	b := newBench(t)
	ctx, cut := context.WithCancel(t.Context())
	cut()
	b.put(t, "a")
	jobs := 0
	err := b.Each(ctx, 2, long, func(*nats.Msg) {
		if jobs++; jobs == 1 {
			b.put(t, "b")
		}
	})
	if err != nil || jobs != 2 {
		t.Errorf("got %d jobs, %v; want both", jobs, err)
	}
}

func TestAWordAboutAnEarlierPullIsNobodys(t *testing.T) {
	b := newBench(t)
	js, err := jetstream.NewWithAPIPrefix(b.Conn, "late")
	if err != nil {
		t.Fatal(err)
	}
	server := b.Dial(t)
	const next = "CONSUMER.MSG.NEXT.QUEUE.hands"
	earlier := ""
	_, err = server.Subscribe("late."+next, func(ask *nats.Msg) {
		if earlier != "" {
			late := &nats.Msg{Subject: earlier, Header: nats.Header{"Status": {"409"}, "Description": {"Leadership Change"}}}
			if err := server.PublishMsg(late); err != nil {
				t.Error(err)
			}
		}
		earlier = ask.Reply
		if err := server.PublishRequest(jetstream.DefaultAPIPrefix+next, ask.Reply, ask.Data); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Flush(); err != nil {
		t.Fatal(err)
	}
	b.Source = pull.From(js, "QUEUE", "hands")
	for i := range 3 {
		b.put(t, fmt.Sprint(i))
		if got, err := b.each(t, 1, long); err != nil || len(got) != 1 {
			t.Errorf("pull %d: got %v, %v; want a job", i, got, err)
		}
	}
}
