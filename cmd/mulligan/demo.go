package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/config"
	"github.com/mulligan-queue/mulligan/internal/demo"
)

// demoKinds is a config file for the provider at an address.
const demoKinds = `
kinds:
  llm.complete:
    effect: pure
    downstream: llm
    http: {url: "http://%[1]s/complete", timeout: 1s, concurrency: 8}
    policy: {attempts: 4, total: 10s, first_delay: 100ms, max_delay: 5s}
  email.send:
    effect: keyed
    downstream: mailer
    http: {url: "http://%[1]s/send", timeout: 1s, concurrency: 8}
    policy: {attempts: 3, total: 5s, first_delay: 100ms, max_delay: 2s}
`

const (
	demoEvery   = 200 * time.Millisecond
	demoSummary = 10 * time.Second
)

// demoSettings keep the log out of the way of what the demo shows; the
// environment and flags go over them.
func demoSettings() []string { return []string{"MULLIGAN_LOG_LEVEL=error"} }

// demo adds the demo's kinds to the config and returns the provider that they
// call, which listens already.
func (p *program) demo() (stage, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return stage{}, fmt.Errorf("listen for the demo's provider: %w", err)
	}
	f, err := config.Parse(fmt.Appendf(nil, demoKinds, l.Addr()))
	if err != nil {
		_ = l.Close()
		return stage{}, fmt.Errorf("demo's kinds: %w", err)
	}
	for _, k := range f.Kinds {
		if slices.ContainsFunc(p.cfg.File.Kinds, func(own mulligan.Kind) bool { return own.Name == k.Name }) {
			_ = l.Close()
			return stage{}, usage("the config file has the demo's kind %s; run the demo without --config", k.Name)
		}
	}
	p.cfg.File.Add(f)
	provider := &demo.Provider{}
	return stage{"demo's provider", func(ctx context.Context) error { return provider.Serve(ctx, l) }}, nil
}

// demoShow publishes jobs and shows what becomes of them.
func (p *program) demoShow(l *link) (trickle, watch stage) {
	pub := &mulligan.Publisher{Conn: l.nc, Kinds: p.cfg.File.Kinds, Topology: l.topology}
	trickle = stage{"demo's trickle", func(ctx context.Context) error { return demo.Trickle(ctx, pub, demoEvery) }}
	watch = stage{"demo's view", func(ctx context.Context) error {
		return demo.Watch(ctx, l.nc, l.topology, p.out, demoSummary)
	}}
	return trickle, watch
}
