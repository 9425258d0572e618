package consumer

import (
	"bufio"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// httpEndless answers with the same bytes again and again until nobody takes
// them, and reports that on ended with how many were sent.
func httpEndless(t *testing.T, first, again string) (url string, ended <-chan int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	sent := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		n, err := io.WriteString(c, first)
		for err == nil {
			var more int
			more, err = io.WriteString(c, again)
			n += more
		}
		sent <- n
	}()
	return "http://" + l.Addr().String(), sent
}

func TestHTTPAnswerWithoutAnEndEnds(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("X-A: "+strings.Repeat("y", 1000)+"\r\n", 10)
	for _, c := range []struct {
		name, first, again string
		want               string
		size               int // of the result
	}{
		{"a body", "HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 1<<16), "done", httpBody},
		{"a body in chunks of a byte", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 1<<10), "done", httpBody},
		{"a body of an error", "HTTP/1.1 500 x\r\n\r\n", strings.Repeat("x", 1<<16), "transient", 0},
		{"a payload to try next", "HTTP/1.1 422 x\r\nMulligan-Retry: changed\r\n\r\n", strings.Repeat("x", 1<<16), "permanent", 0},
		{"a header", "HTTP/1.1 200 OK\r\n", line, "transient", 0},
		{"a header line", "HTTP/1.1 200 OK\r\nX: ", line[:5], "transient", 0},
		{"a status line", "HTTP/1.1 200 ", line[:5], "transient", 0},
		{"answers before the answer", "", "HTTP/1.1 103 Early Hints\r\n\r\n", "transient", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url, ended := httpEndless(t, c.first, c.again)
			target := &HTTPTarget{URL: url, Timeout: time.Minute}
			result, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: "1"})
			if got := httpOutcome(err); got != c.want || len(result) != c.size {
				t.Errorf("got %s (%v) and %d bytes, want %s and %d", got, err, len(result), c.want, c.size)
			}
			const buffers = 16 << 20 // of two sockets
			if n := <-ended; n > httpBody+buffers {
				t.Errorf("the target could send %d bytes", n)
			}
		})
	}
}

// What unpacks to a thousand times its size is read up to the same limit.
func TestHTTPAnswerThatIsPackedIsUnpackedUpToTheLimit(t *testing.T) {
	t.Parallel()
	var packed atomic.Int64 // before packing
	target := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("Accept-Encoding is %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		zeros := make([]byte, 1<<20)
		for r.Context().Err() == nil {
			n, err := z.Write(zeros)
			if packed.Add(int64(n)); err != nil || z.Flush() != nil {
				return
			}
		}
	})
	result, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: "1"})
	if err != nil || len(result) != httpBody {
		t.Errorf("got %d bytes and %v, want %d", len(result), err, httpBody)
	}
}

func TestHTTPAnswerThatDripsIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1"} {
		gone := make(chan struct{})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(gone)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			if _, err = http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, err = io.WriteString(c, head)
			}
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for err == nil {
				<-tick.C
				_, err = io.WriteString(c, "1")
			}
		}()
		target := &HTTPTarget{URL: "http://" + l.Addr().String(), Timeout: 300 * time.Millisecond}
		_, err = target.Handle(context.Background(), &mulligan.Job{Kind: "k", ID: "1"})
		if mulligan.ErrorType(err) != "timeout" {
			t.Errorf("%q and a byte now and then: got %v, want a timeout", head, err)
		}
		<-gone // its connection is closed
		_ = l.Close()
	}
}
