package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/config"
	"github.com/mulligan-queue/mulligan/internal/embedded"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

const (
	dialWait    = 2 * time.Second
	commandWait = 15 * time.Second // for a command that asks a few questions
	flushWait   = 5 * time.Second
	writeWait   = 5 * time.Second // for a server that takes nothing
	// A link that went silent is known after 10 to 15 s: well before the server
	// gives the jobs in hand to another worker, so that what ends is acknowledged.
	pingEvery = 5 * time.Second
	pingsLost = 2
)

// A link is a command's way to the streams.
type link struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	topology mulligan.Topology
	at       string // the server's URL, for people
	// Set if the server is ours.
	server *embedded.Server
	data   string
}

// connect reaches the server for the command of a name. Close the link's
// connection.
func (p *program) connect(name string) (*link, error) {
	return p.dial(name, p.quiet())
}

// connectRole is connect for what runs for long: it waits for a server that is not
// there, until ctx ends. What no waiting mends is an error at once.
func (p *program) connectRole(ctx context.Context, name string) (*link, error) {
	for {
		l, err := p.dial(name, p.log)
		if err == nil || unmendable(err) {
			return l, err
		}
		p.log.Warn().Err(err).Msg("trying again")
		if pause.For(ctx, time.Second) != nil {
			return nil, err
		}
	}
}

// unmendable reports whether no waiting gives a connection: of an address, credentials
// or a certificate that is wrong.
func unmendable(err error) bool {
	_, address := errors.AsType[*url.Error](err)
	_, file := errors.AsType[*fs.PathError](err)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	return address || file || certificate || errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired) || errors.Is(err, nats.ErrSecureConnRequired) || errors.Is(err, nats.ErrSecureConnWanted)
}

func (p *program) dial(name string, log zerolog.Logger) (*link, error) {
	s := p.cfg.Settings
	at := s.NATSURL
	if at == "" {
		at = config.DefaultNATSURL
	}
	options := natsOptions(name, log)
	switch {
	case s.NATSCreds != "":
		options = append(options, nats.UserCredentials(s.NATSCreds))
	case s.Token != "":
		options = append(options, nats.Token(s.Token))
	}
	nc, err := nats.Connect(at, options...)
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return nil, fmt.Errorf("NATS at %s lets nobody in without the right MULLIGAN_TOKEN or NATS_CREDS: %w", shown(at), err)
	case err != nil:
		return nil, fmt.Errorf("cannot reach NATS at %s (%w): start it with `mulligan serve` or set --server", shown(at), err)
	}
	return p.newLink(nc)
}

func (p *program) newLink(nc *nats.Conn) (*link, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return &link{nc: nc, js: js, topology: p.cfg.File.Topology, at: shown(nc.ConnectedUrl())}, nil
}

// natsOptions log what happens to a connection. A refused publish shows there
// only: its caller sees a timeout.
func natsOptions(name string, log zerolog.Logger) []nats.Option {
	return []nats.Option{
		nats.Name("mulligan " + name),
		nats.MaxReconnects(-1),
		nats.Timeout(dialWait),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsLost),
		// All who use a connection wait for a write of it, whatever their contexts
		// say: a server that takes nothing is given up soon, and looked for again.
		nats.FlusherTimeout(writeWait),
		nats.ReconnectOnFlusherError(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn().Err(err).Msg("NATS reports")
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn().Err(err).Msg("NATS is away; reconnecting")
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info().Str("url", nc.ConnectedUrlRedacted()).Msg("NATS is back")
		}),
	}
}

// close flushes what was published without waiting, closes the connection and,
// last of all, ends a server of ours.
func (l *link) close() {
	if l.nc.IsConnected() {
		_ = l.nc.FlushTimeout(flushWait) // the truth is stored already
	}
	l.nc.Close()
	if l.server != nil {
		l.server.Shutdown()
	}
}

// kinds are those of the config file; where it has none, those declared on the
// server.
func (p *program) kinds(ctx context.Context, l *link) ([]mulligan.Kind, error) {
	if len(p.cfg.File.Kinds) > 0 {
		return p.cfg.File.Kinds, nil
	}
	return l.topology.Kinds(ctx, l.js)
}

// shown is a URL, or several, without passwords.
func shown(list string) string {
	var urls []string
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			urls = append(urls, "(unreadable)")
			continue
		}
		if u.User != nil {
			u.User = url.User("xxxxx") // a token comes in place of the user
		}
		urls = append(urls, u.String())
	}
	return strings.Join(urls, ",")
}
