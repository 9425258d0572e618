package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

// targets runs jobs whose handler is an HTTP endpoint on this machine.
func targets() Case {
	const n, concurrency = 10_000, 64
	return Case{
		Name:     "http",
		About:    fmt.Sprintf("run %d pure jobs of 256 B that wait by an HTTP target on this machine, %d at once; bare: an http.Client that makes the same calls, without a queue", n, concurrency),
		Against:  "http.Client",
		Measures: throughput(0.9, 0, 0),
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			url, stop, err := endpoint()
			if err != nil {
				return nil, err
			}
			defer stop()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: concurrency}}
			defer client.CloseIdleConnections()
			return timed(n, func() error {
				return share(n, concurrency, func(i int) error { return post(ctx, client, url, i) })
			})
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			url, stop, err := endpoint()
			if err != nil {
				return nil, err
			}
			defer stop()
			if err := f.fillBare(ctx, pure, n, small); err != nil {
				return nil, err
			}
			target := &consumer.HTTPTarget{URL: url}
			return f.drained(ctx, n, func(ctx context.Context, took func()) error {
				return f.work(ctx, pure, concurrency, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
					defer took()
					return target.Handle(ctx, j)
				})
			})
		},
	}
}

// endpoint answers every call at once.
func endpoint() (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a client that has gone is its own matter
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = s.Serve(l) }() // ends with Close
	return "http://" + l.Addr().String(), func() { _ = s.Close() }, nil
}

func post(ctx context.Context, c *http.Client, url string, i int) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(make([]byte, small)))
	if err != nil {
		return err
	}
	r.Header.Set("Idempotency-Key", id(i))
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return err
}
