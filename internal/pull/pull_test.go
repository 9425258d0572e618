package pull_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/internal/pull"
)

const (
	brief = 300 * time.Millisecond // for a pull that gets less than it asks for
	long  = 20 * time.Second       // for one that ends before
)

// bench is a work queue with a durable consumer.
type bench struct {
	*natstest.Env
	*pull.Source
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchOn(t, natstest.Server(t))
}

func newBenchOn(t *testing.T, e *natstest.Env) *bench {
	t.Helper()
	queue := jetstream.StreamConfig{Name: "QUEUE", Subjects: []string{"job.>"}, Retention: jetstream.WorkQueuePolicy}
	if _, err := e.JS.CreateStream(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	durable := jetstream.ConsumerConfig{Durable: "hands", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute}
	if _, err := e.JS.CreateConsumer(t.Context(), "QUEUE", durable); err != nil {
		t.Fatal(err)
	}
	b := &bench{Env: e, Source: pull.From(e.JS, "QUEUE", "hands")}
	t.Cleanup(func() { b.Close() })
	return b
}

// put stores jobs, each with its name as the body.
func (b *bench) put(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		b.store(t, &nats.Msg{Subject: "job." + name, Data: []byte(name)})
	}
}

func (b *bench) store(t *testing.T, m *nats.Msg) {
	t.Helper()
	if _, err := b.JS.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// left is how many jobs the queue still holds.
func (b *bench) left(t *testing.T) uint64 {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), "QUEUE")
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// each pulls, acknowledges what comes and returns its subjects.
func (b *bench) each(t *testing.T, n int, wait time.Duration) (got []string, err error) {
	t.Helper()
	err = b.Each(t.Context(), n, wait, func(m *nats.Msg) {
		got = append(got, m.Subject)
		if err := m.AckSync(nats.Context(t.Context())); err != nil {
			t.Errorf("acknowledge %s: %v", m.Subject, err)
		}
	})
	return got, err
}

// soon fails the test if it took as long as an endless pull.
func soon(t *testing.T, began time.Time) {
	t.Helper()
	if took := time.Since(began); took > long/2 {
		t.Errorf("the pull ended after %v only", took)
	}
}

func TestAPullEndsWithItsLastJobOrItsTime(t *testing.T) {
	b := newBench(t)
	b.put(t, "a", "b", "c", "d", "e")
	began := time.Now()
	if got, err := b.each(t, 3, long); err != nil || !slices.Equal(got, []string{"job.a", "job.b", "job.c"}) {
		t.Errorf("of five jobs the first three are asked for: got %v, %v", got, err)
	}
	soon(t, began)
	if got, err := b.each(t, 3, brief); err != nil || !slices.Equal(got, []string{"job.d", "job.e"}) {
		t.Errorf("of two jobs three are asked for: got %v, %v", got, err)
	}
	if got, err := b.each(t, 3, brief); err != nil || len(got) != 0 {
		t.Errorf("there is none: got %v, %v", got, err)
	}
	if n := b.left(t); n != 0 {
		t.Errorf("%d jobs are left, want all acknowledged", n)
	}
}

func TestJobsAreHandedOutAsTheyArrive(t *testing.T) {
	b := newBench(t)
	b.put(t, "0")
	var got []string
	began := time.Now()
	err := b.Each(t.Context(), 5, long, func(m *nats.Msg) {
		got = append(got, m.Subject)
		b.put(t, fmt.Sprint(len(got)))
	})
	if err != nil || len(got) != 5 {
		t.Errorf("each job brings the next: got %v, %v; want five", got, err)
	}
	soon(t, began)
}

// What has arrived while somebody took long is no silence of the server.
func TestWhoTakesLongIsGivenWhatHasArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBenchOn(t, natstest.InBubble(t))
		const n = 20
		for i := range n {
			b.put(t, fmt.Sprint(i))
		}
		got := 0
		err := b.Each(t.Context(), n, brief, func(m *nats.Msg) {
			got++
			time.Sleep(5 * time.Second)
			if err := m.Ack(); err != nil {
				t.Error(err)
			}
		})
		if got != n || err != nil {
			t.Errorf("got %d of %d, and %v", got, n, err)
		}
	})
}

func TestAnEmptyJobWithAStatusIsAJobLikeAnyOther(t *testing.T) {
	b := newBench(t)
	var want []string
	for i, status := range []string{"", "100", "400", "404", "408", "409", "423", "503", "ok"} {
		h := nats.Header{"Status": {status}, "Description": {"Consumer Deleted"}}
		subject := fmt.Sprint("job.stranger-", i)
		b.store(t, &nats.Msg{Subject: subject, Header: h})
		b.put(t, fmt.Sprint("neighbour-", i))
		want = append(want, subject, fmt.Sprint("job.neighbour-", i))
	}
	began := time.Now()
	if got, err := b.each(t, len(want), long); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	soon(t, began)
	if n := b.left(t); n != 0 {
		t.Errorf("%d jobs are left, want all acknowledged", n)
	}
}

func TestAJobCanBeAcknowledgedInEveryWayWhenItsPullIsOver(t *testing.T) {
	b := newBench(t)
	b.store(t, &nats.Msg{Subject: "job.a", Header: nats.Header{"Status": {"404"}}})
	for try := uint64(1); try <= 4; try++ {
		var m *nats.Msg
		if err := b.Each(t.Context(), 1, long, func(got *nats.Msg) { m = got }); err != nil || m == nil {
			t.Fatalf("delivery %d: got %v, %v", try, m, err)
		}
		meta, err := m.Metadata()
		if err != nil || meta.NumDelivered != try || meta.Stream != "QUEUE" || meta.Sequence.Stream != 1 {
			t.Errorf("delivery %d: got %+v, %v", try, meta, err)
		}
		if err := m.InProgress(); err != nil {
			t.Errorf("delivery %d: in progress: %v", try, err)
		}
		end := []func() error{
			func() error { return m.Nak() },
			func() error { return m.NakWithDelay(10 * time.Millisecond) },
			func() error { return m.NakWithDelay(0) },
			func() error { return m.AckSync(nats.Context(t.Context())) },
		}[try-1]
		if err := end(); err != nil {
			t.Errorf("delivery %d: %v", try, err)
		}
	}
	if n := b.left(t); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

func TestAPullOfADeletedConsumerSaysSo(t *testing.T) {
	b := newBench(t)
	b.put(t, "a")
	began := time.Now()
	err := b.Each(t.Context(), 2, long, func(*nats.Msg) {
		if err := b.JS.DeleteConsumer(t.Context(), "QUEUE", "hands"); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, jetstream.ErrConsumerDeleted) {
		t.Errorf("deleted while it is pulled from: got %v, want ErrConsumerDeleted", err)
	}
	if got, err := b.each(t, 2, long); !errors.Is(err, nats.ErrNoResponders) || len(got) != 0 {
		t.Errorf("deleted before: got %v, %v; want ErrNoResponders", got, err)
	}
	soon(t, began)
}

func TestAPullWhoseConnectionBreaksHandsOutWhatHasArrived(t *testing.T) {
	b := newBench(t)
	b.put(t, "a", "b", "c")
	c, err := b.JS.Consumer(t.Context(), "QUEUE", "hands")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	jobs, before := 0, b.Conn.Stats().InMsgs
	err = b.Each(t.Context(), 5, long, func(*nats.Msg) {
		if jobs++; jobs > 1 {
			return
		}
		// The server counts a job as delivered before it has sent it; what has arrived
		// is the jobs, and the answers to this question.
		for answers := uint64(0); b.Conn.Stats().InMsgs-before-answers < 3 && t.Context().Err() == nil; answers++ {
			if _, err := c.Info(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
		if err := errors.Join(b.Conn.Flush(), b.Conn.ForceReconnect()); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, nats.ErrDisconnected) || jobs != 3 {
		t.Errorf("got %d jobs, %v; want all three and ErrDisconnected", jobs, err)
	}
	soon(t, began)
}

func TestAPullWithoutAConnectionWaitsForIt(t *testing.T) {
	b := newBench(t)
	b.put(t, "a")
	began := time.Now()
	if err := b.Each(t.Context(), 2, long, func(*nats.Msg) { b.Down() }); err == nil {
		t.Error("the server goes away, and it is no error")
	}
	if got, err := b.each(t, 2, brief); err != nil || len(got) != 0 {
		t.Errorf("the server is away: got %v, %v; want neither", got, err)
	}
	ended := make(chan error)
	go func() { ended <- b.Each(t.Context(), 1, long, func(*nats.Msg) {}) }()
	b.Restart(t)
	b.put(t, "b")
	if err := <-ended; err != nil {
		t.Errorf("the server is back: got %v", err)
	}
	soon(t, began)
	b.Conn.Close()
	if got, err := b.each(t, 2, long); !errors.Is(err, nats.ErrConnectionClosed) || len(got) != 0 {
		t.Errorf("the connection is closed: got %v, %v", got, err)
	}
}

func TestAJobThatArrivesLateIsHandedOut(t *testing.T) {
	b := newBench(t)
	road := newRoad(t, b.URL)
	nc, err := nats.Connect(road.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	road.closed.Lock()
	b.put(t, "a")
	const due = brief + time.Second // when the pull gives the server up
	time.AfterFunc(due+time.Second/2, road.closed.Unlock)
	jobs := 0
	err = pull.From(js, "QUEUE", "hands").Each(t.Context(), 2, brief, func(*nats.Msg) { jobs++ })
	if !errors.Is(err, nats.ErrTimeout) || jobs != 1 {
		t.Errorf("got %d jobs, %v; want the one and ErrTimeout", jobs, err)
	}
}

// road is a way to a server that can be closed in one direction.
type road struct {
	url    string
	closed sync.Mutex // held while nothing comes from the server
}

func newRoad(t *testing.T, server string) *road {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &road{url: "nats://" + l.Addr().String()}
	var travels sync.WaitGroup
	travels.Go(func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = client.Close() }()
		far, err := net.Dial("tcp", strings.TrimPrefix(server, "nats://"))
		if err != nil {
			t.Error(err)
			return
		}
		travels.Go(func() {
			defer func() { _ = far.Close() }()
			_, _ = io.Copy(far, client) // ends with the client
		})
		r.back(far, client)
	})
	t.Cleanup(travels.Wait)
	t.Cleanup(func() { _ = l.Close() })
	return r
}

// back brings what the server says until it says no more.
func (r *road) back(far io.Reader, client io.Writer) {
	buf := make([]byte, 4096)
	for {
		n, err := far.Read(buf)
		if err != nil {
			return
		}
		r.closed.Lock()
		_, err = client.Write(buf[:n])
		r.closed.Unlock()
		if err != nil {
			return
		}
	}
}
