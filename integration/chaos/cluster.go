//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func serverURLs() (urls []string) {
	for _, name := range servers() {
		urls = append(urls, "nats://"+address(name)+":4222")
	}
	return urls
}

// serverURL has all servers, as clients take them.
func serverURL() string { return strings.Join(serverURLs(), ",") }

// streams are those that can be told to change their leader; consumers of ours
// are on the first two.
func streams() []string {
	return []string{"MULLIGAN_JOBS", "MULLIGAN_RETRIES", "MULLIGAN_DEAD", "KV_mulligan_ledger", "KV_mulligan_budget", "KV_mulligan_kinds"}
}

const adminPassword = "of the sandbox"

// serverConfig is the configuration file of one of three servers. Clients that
// say nothing are in the account of the jobs. The limit of JetStream is below
// what the small disk has, for raft's logs and the rest are not counted.
func (r *rig) serverConfig(name string) string {
	dir, limit := r.Dir, "96MB"
	if r.Mode != "" {
		limit = "2GB"
	}
	var routes []string
	for _, other := range servers() {
		routes = append(routes, "nats-route://"+address(other)+":6222")
	}
	return fmt.Sprintf(`
server_name: %s
listen: "%s:4222"
server_tags: [%q]
jetstream { store_dir: %q, max_file_store: %s, max_memory_store: 64MB, max_buffered_msgs: 150 }
cluster { name: chaos, listen: "%s:6222", routes: [%s] }
accounts {
  SYS: { users: [{user: admin, password: %q}] }
  JOBS: { jetstream: enabled, users: [{user: jobs, password: jobs}] }
}
system_account: SYS
no_auth_user: jobs
prof_port: %d
http: "%s:%d"
`, name, address(name), name, storeOf(dir, name), limit, address(name), strings.Join(routes, ", "), adminPassword, profilePort, address(name), monitorPort)
}

// A cluster is how the rig reaches the servers.
type cluster struct {
	nc, admin *nats.Conn
	js        jetstream.JetStream
}

// connect reaches the servers that run; it waits for the first.
func connect() (cluster, error) {
	options := []nats.Option{nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.PingInterval(5 * time.Second),
		nats.ReconnectWait(200 * time.Millisecond), nats.Name("chaos")}
	var (
		c   cluster
		err error
	)
	if c.nc, err = nats.Connect(serverURL(), options...); err != nil {
		return c, err
	}
	if c.admin, err = nats.Connect(serverURL(), append(options, nats.UserInfo("admin", adminPassword))...); err != nil {
		return c, err
	}
	c.js, err = jetstream.New(c.nc)
	return c, err
}

func (c cluster) close() {
	c.nc.Close()
	c.admin.Close()
}

// ask calls the API of JetStream.
func (c cluster) ask(ctx context.Context, nc *nats.Conn, subject string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, "$JS.API."+subject, b)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	var answer struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %s", subject, answer.Error.Description)
	}
	return nil
}

// insisting is for how long something is asked again that has no leader just now.
const insisting = 15 * time.Second

// insist asks until there is an answer that is no error.
func insist(ctx context.Context, ask func() error) error {
	for deadline := time.Now().Add(insisting); ; {
		err := ask()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		wait(ctx, 500*time.Millisecond)
	}
}

// demand calls the API until it agrees. If it never answered, nobody knows whether
// it did what was asked.
func (c cluster) demand(ctx context.Context, nc *nats.Conn, subject string) error {
	doubt := false
	err := insist(ctx, func() error {
		err := c.ask(ctx, nc, subject, struct{}{})
		doubt = doubt || errors.Is(err, context.DeadlineExceeded)
		return err
	})
	if doubt {
		return err
	}
	return notApplied(err)
}

// stepDown makes the leader of the fault's target give way.
func (c cluster) stepDown(ctx context.Context, f fault) error {
	switch f.Target {
	case "meta":
		return c.demand(ctx, c.admin, "META.LEADER.STEPDOWN")
	case "stream":
		return c.demand(ctx, c.nc, "STREAM.LEADER.STEPDOWN."+f.With)
	}
	cfg, err := c.consumer(ctx, f)
	if err != nil {
		return notApplied(err)
	}
	return c.demand(ctx, c.nc, "CONSUMER.LEADER.STEPDOWN."+f.With+"."+cfg.Durable)
}

// consumer is the one that a fault means by its place.
func (c cluster) consumer(ctx context.Context, f fault) (cfg jetstream.ConsumerConfig, err error) {
	var place int
	if _, err := fmt.Sscanf(f.Target, "consumer %d", &place); err != nil {
		return cfg, err
	}
	return cfg, insist(ctx, func() error {
		all, err := c.consumers(ctx, f.With)
		if err == nil && len(all) == 0 {
			err = errors.New("there is no consumer on " + f.With)
		}
		if err == nil {
			cfg = all[place%len(all)].Config
		}
		return err
	})
}

// consumers are those of a stream, by name.
func (c cluster) consumers(ctx context.Context, stream string) (all []*jetstream.ConsumerInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	list := s.ListConsumers(ctx)
	for info := range list.Info() {
		all = append(all, info)
	}
	slices.SortFunc(all, func(a, b *jetstream.ConsumerInfo) int { return strings.Compare(a.Name, b.Name) })
	return all, list.Err()
}

// recreate deletes a consumer and creates it again as it was, as an operator
// might who believes that it is stuck. What was deleted is created in any case.
func (r *rig) recreate(ctx context.Context, f fault) error {
	cfg, err := r.consumer(ctx, f)
	if err != nil {
		return notApplied(err)
	}
	r.say("recreate %s", cfg.Durable)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	// A deletion whose answer is lost may have happened.
	deleted := r.js.DeleteConsumer(ctx, f.With, cfg.Durable)
	for {
		_, err := r.js.CreateOrUpdateConsumer(ctx, f.With, cfg)
		if err == nil || ctx.Err() != nil {
			return errors.Join(deleted, err)
		}
		wait(ctx, 200*time.Millisecond)
	}
}

// resetPause is how long a consumer is paused at most, for a reset.
const resetPause = 20 * time.Second

// resetConsumer makes a consumer begin again at its first message that is not
// acknowledged, as an operator does who has read that it must be paused meanwhile.
func (r *rig) resetConsumer(ctx context.Context, f fault) error {
	cfg, err := r.consumer(ctx, f)
	if err != nil {
		return notApplied(err)
	}
	r.say("reset %s", cfg.Durable)
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// Should it not be resumed, it goes on by itself.
	if _, err := r.js.PauseConsumer(asking, f.With, cfg.Durable, time.Now().Add(resetPause)); err != nil {
		return notApplied(err)
	}
	err = r.demand(ctx, r.nc, "CONSUMER.RESET."+f.With+"."+cfg.Durable)
	asking, cancel = context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, resumed := r.js.ResumeConsumer(asking, f.With, cfg.Durable); resumed != nil {
		r.note("resume %s: %v; it goes on by itself", cfg.Durable, resumed)
		wait(ctx, resetPause)
	}
	return err
}
