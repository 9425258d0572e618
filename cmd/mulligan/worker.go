package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/metrics"
	"github.com/mulligan-queue/mulligan/scheduler"
)

func (p *program) workerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "worker",
		Short: "Run the jobs of the config file's kinds, against a NATS server that runs elsewhere",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(p.cfg.File.Targets) == 0 {
				return usage("a worker needs a kind with an http target: name a file that has one with --config")
			}
			return p.runRole(cmd.Context(), "worker", p.worker)
		},
	}
	setting(c.Flags(), "http", "MULLIGAN_HTTP", probesUse)
	return c
}

func (p *program) schedulerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "scheduler",
		Short: "Bury spent jobs, against a NATS server that runs elsewhere",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.runRole(cmd.Context(), "scheduler", p.scheduler) },
	}
	setting(c.Flags(), "http", "MULLIGAN_HTTP", probesUse)
	return c
}

const probesUse = "serve /healthz, /readyz and /metrics on this address"

// runRole runs one role until a signal comes, and the probes if an address is
// given for them.
func (p *program) runRole(ctx context.Context, name string, role func(*link, *metrics.Metrics) (s stage, running func() bool)) error {
	reg, m := newMetrics()
	var probes net.Listener
	if addr := p.cfg.Settings.HTTP; addr != "" {
		var err error
		if probes, err = listenHTTP(addr); err != nil {
			return err
		}
		defer func() { _ = probes.Close() }() // closed already, unless something failed
	}
	var l *link
	err := p.awaiting(ctx, probes, func() (err error) {
		l, err = p.connectRole(ctx, name)
		return err
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // it was to end before it had begun
	case err != nil:
		return err
	}
	defer l.close()
	own, running := role(l, m)
	stages := []stage{own}
	at := ready{NATS: l.at, Roles: []string{name}}
	if probes != nil {
		at.HTTP = "http://" + probes.Addr().String()
		// Last, so that the probes tell of a worker that drains.
		stages = append(stages, p.http(l, probes, api.Server{Gatherer: reg, Ready: func(ctx context.Context) error {
			if !running() {
				return fmt.Errorf("the %s waits for NATS before it begins", name)
			}
			return l.stored(ctx)
		}}))
	}
	if err := p.showReady(at); err != nil {
		return err
	}
	return runStages(ctx, stages)
}

// worker serves the kinds that have a target.
func (p *program) worker(l *link, m *metrics.Metrics) (s stage, running func() bool) {
	f := &p.cfg.File
	w := &consumer.Worker{Conn: l.nc, Topology: l.topology, Downstreams: f.Downstreams, UserRate: f.UserRate, Metrics: m, Log: p.log}
	for _, k := range f.Kinds {
		if target, ok := f.Targets[k.Name]; ok {
			w.Handle(k, target)
		}
	}
	return stage{"worker", w.Run}, w.Running
}

func (p *program) scheduler(l *link, m *metrics.Metrics) (_ stage, running func() bool) {
	s := &scheduler.Scheduler{Conn: l.nc, Topology: l.topology, Metrics: m, Log: p.log}
	return stage{"scheduler", s.Run}, s.Running
}

// http serves s on a listener; without a publisher, only what is there for
// machines.
func (p *program) http(l *link, on net.Listener, s api.Server) stage {
	s.Conn, s.Token, s.Log = l.nc, p.cfg.Settings.Token, p.log
	most := p.cfg.File.HTTP
	s.MaxConnections, s.MaxRequests, s.MaxWaiting = most.MaxConnections, most.MaxRequests, most.MaxWaiting
	return stage{"HTTP server", func(ctx context.Context) error { return s.Serve(ctx, on) }}
}

// stored reports whether there is a stream of jobs, and says why not.
func (l *link) stored(ctx context.Context) error {
	_, err := l.js.Stream(ctx, l.topology.JobsStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return mulligan.ErrNoTopology
	}
	return err
}

// awaiting answers at a listener, if there is one, that this process lives and is not
// ready, while do waits for NATS.
func (p *program) awaiting(ctx context.Context, on net.Listener, do func() error) error {
	l, ok := on.(*net.TCPListener)
	if !ok {
		return do()
	}
	ctx, stop := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		s := api.Server{Log: p.log}
		if err := s.Wait(ctx, l); err != nil {
			p.log.Warn().Err(err).Msg("probes")
		}
	})
	defer waiting.Wait()
	defer stop()
	return do()
}

func listenHTTP(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w; choose another address with --http", err)
	}
	return l, nil
}

func newMetrics() (*prometheus.Registry, *metrics.Metrics) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg, metrics.New(reg)
}
