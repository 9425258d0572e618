package main

import (
	"context"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	ask "github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/config"
	"github.com/mulligan-queue/mulligan/internal/embedded"
)

func (p *program) serveCommand() *cobra.Command {
	var demo bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run everything in one process: NATS unless there is one elsewhere, scheduler, workers, HTTP",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.serve(cmd.Context(), demo) },
	}
	f := c.Flags()
	f.BoolVar(&demo, "demo", false, "run a flaky provider and a trickle of jobs, and show what happens")
	setting(f, "data", "MULLIGAN_DATA", "where the embedded server keeps its streams (default "+config.DefaultData+")")
	setting(f, "http", "MULLIGAN_HTTP", "where the HTTP API listens (default "+config.DefaultHTTP+")")
	setting(f, "nats-listen", "MULLIGAN_NATS_LISTEN", "where the embedded server takes clients (default "+config.DefaultNATSListen+")")
	setting(f, "sync", "MULLIGAN_SYNC", "when the embedded server flushes to disk: always, or every so often, such as 1s (default always)")
	return c
}

// ready says where a process can be found.
type ready struct {
	HTTP  string   `json:"http,omitempty"`
	NATS  string   `json:"nats"`
	Data  string   `json:"data,omitempty"`
	Roles []string `json:"roles"`
	Kinds []string `json:"kinds,omitempty"`
}

func (p *program) serve(ctx context.Context, demo bool) error {
	var provider []stage
	if demo {
		s, err := p.demo()
		if err != nil {
			return err
		}
		provider = []stage{s}
	}
	addr := p.cfg.Settings.HTTP
	if addr == "" {
		addr = config.DefaultHTTP
	}
	web, err := listenHTTP(addr)
	if err != nil {
		return err
	}
	defer func() { _ = web.Close() }() // closed already, unless something failed
	var l *link
	var stages []stage
	err = p.awaiting(ctx, web, func() (err error) {
		if l, err = p.connectOrEmbed(ctx); err != nil {
			return err
		}
		stages, err = p.serveStages(ctx, l, web)
		return err
	})
	if l != nil {
		defer l.close()
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // it was to end before it had begun
	case err != nil:
		return err
	}
	at := ready{HTTP: "http://" + web.Addr().String(), NATS: l.at, Data: l.data}
	for _, s := range stages {
		at.Roles = append(at.Roles, s.name)
	}
	for _, k := range p.cfg.File.Kinds {
		at.Kinds = append(at.Kinds, k.Name)
	}
	if err := p.showReady(at); err != nil {
		return err
	}
	if demo {
		trickle, watch := p.demoShow(l)
		stages = append(append([]stage{trickle}, stages...), watch)
	}
	return runStages(ctx, append(stages, provider...))
}

// serveStages are the parts in the order of a job's life, which is the order in
// which they stop: accept no more, finish what is in hand, bury what is spent.
func (p *program) serveStages(ctx context.Context, l *link, web net.Listener) ([]stage, error) {
	if err := p.provisionPatiently(ctx, l); err != nil {
		return nil, err
	}
	reg, m := newMetrics()
	pub := &mulligan.Publisher{Conn: l.nc, Kinds: p.cfg.File.Kinds, Topology: l.topology} // it learns of those that workers declare
	stages := []stage{p.http(l, web, api.Server{Publisher: pub, Gatherer: reg, Ready: l.stored})}
	if len(p.cfg.File.Targets) > 0 {
		w, _ := p.worker(l, m)
		stages = append(stages, w)
	}
	s, _ := p.scheduler(l, m)
	return append(stages, s), nil
}

// provisionPatiently is provision for a process that starts while its servers do,
// or have no leader: as long as that takes.
func (p *program) provisionPatiently(ctx context.Context, l *link) error {
	return ask.Patiently(ctx, func() error {
		_, err := p.provision(ctx, l)
		return err
	}, l.nc.LastError, func(err error) {
		p.log.Warn().Err(err).Msg("provision; trying again")
	})
}

// connectOrEmbed reaches the server that the settings name, or runs one.
func (p *program) connectOrEmbed(ctx context.Context) (*link, error) {
	s := p.cfg.Settings
	if s.NATSURL != "" {
		return p.connectRole(ctx, "serve")
	}
	every, err := config.SyncInterval(s.Sync)
	if err != nil {
		return nil, err
	}
	server, err := embedded.Start(embedded.Options{Dir: s.Data, Listen: s.NATSListen, SyncInterval: every, Token: s.Token, Log: p.log})
	if err != nil {
		return nil, err
	}
	nc, err := server.Connect(natsOptions("serve", p.log)...)
	if err != nil {
		server.Shutdown()
		return nil, err
	}
	l, err := p.newLink(nc)
	if err != nil {
		server.Shutdown()
		return nil, err
	}
	l.server, l.at, l.data = server, server.ClientURL(), s.Data
	return l, nil
}

// showReady prints the one line that says where to find what runs.
func (p *program) showReady(at ready) error {
	if p.asJSON {
		return p.printLine(at)
	}
	p.printf("mulligan is ready: %s", strings.Join(at.Roles, ", "))
	if at.HTTP != "" {
		p.printf("; HTTP on %s", at.HTTP)
	}
	p.printf("; NATS on %s", at.NATS)
	if at.Data != "" {
		p.printf(", data in %s", at.Data)
	}
	if len(at.Kinds) > 0 {
		p.printf("; kinds %s", strings.Join(at.Kinds, ", "))
	}
	p.printf("\n")
	return nil
}
