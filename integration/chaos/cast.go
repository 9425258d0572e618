//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/mulligan-queue/mulligan/integration/chaos/witness"
)

const (
	refusing       = "refusing" // the configuration of a downstream that does
	publishRate    = 10         // jobs a second of each publisher
	crowdedRate    = 16         // the same, where calls are to be many at once
	downstreamPort = ":8080"
	httpPort       = ":8081"
	httpToken      = "of the sandbox" // of Mulligan's HTTP
	serverLimit    = "GOMEMLIMIT=768MiB"
)

// cast says what runs in each place.
func (r *rig) cast() error {
	for _, name := range everyone() {
		r.processes[name] = &process{name: name, dir: r.Dir, told: r.broke}
	}
	for _, name := range servers() {
		file := filepath.Join(r.Dir, name+".conf")
		if err := os.WriteFile(file, []byte(r.serverConfig(name)), 0o600); err != nil {
			return err
		}
		r.processes[name].args = []string{r.program(programNATS), "-c", file}
		r.processes[name].env = []string{serverLimit} // else its heap may be twice what it needs
	}
	for _, name := range workers() {
		for version := 1; version <= 2; version++ {
			text := topology + r.userRate().String() + witness.WorkerConfig(r.Seed, name, "http://"+address(downstream)+downstreamPort, version)
			if err := os.WriteFile(r.configFile(name, version), []byte(text), 0o600); err != nil {
				return err
			}
		}
		r.processes[name].args = r.worker(name, 1)
		if r.Mode != "" { // all kinds from the beginning
			r.processes[name].args = r.worker(name, 2)
		}
	}
	file := filepath.Join(r.Dir, api+".yaml")
	if err := os.WriteFile(file, []byte(topology), 0o600); err != nil {
		return err
	}
	r.processes[api].args = r.mulligan(api, "serve", "--config", file)
	for _, name := range schedulers() {
		r.processes[name].args = r.mulligan(name, "scheduler", "--config", r.configFile(workers()[0], 1))
	}
	for _, name := range ours() {
		r.processes[name].env = []string{"MULLIGAN_TOKEN=" + httpToken}
	}
	for name, skew := range r.skews {
		r.processes[name].env = append(r.processes[name].env, skewVariable+"="+strconv.FormatInt(int64(skew), 10))
	}
	return r.castRoles()
}

// castRoles has those who stand around the product: this program's own roles.
func (r *rig) castRoles() error {
	usual := witness.DownstreamConfig{Seed: r.Seed, Calm: r.Mode != "", Slow: r.crowded(), Listen: downstreamPort, Log: r.logFile(downstream)}
	refuses := usual
	refuses.Outage = true
	if err := writeJSON(r.roleFile(refusing), refuses); err != nil {
		return err
	}
	roles := map[string]any{
		downstream: usual,
		operator:   witness.OperatorConfig{Seed: r.Seed, Servers: serverURLs(), Program: r.program(programMulligan), Log: r.logFile(operator)},
	}
	for _, name := range publishers() {
		roles[name] = r.publisher(name)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(r.Dir, saidDir), 0o755); err != nil {
		return err
	}
	for name, cfg := range roles {
		if err := writeJSON(r.roleFile(name), cfg); err != nil {
			return err
		}
		r.processes[name].args = []string{self, strings.TrimRight(name, "0123456789"), "-config", r.roleFile(name)}
	}
	return nil
}

// userRate is the run's. One that is about load has as few users as any other and
// many more jobs, and is not about what a user may do.
func (r *rig) userRate() witness.Rate {
	if r.Mode != "" {
		return witness.Rate{PerSecond: 50, Burst: 100}
	}
	return witness.UserRate()
}

func (r *rig) publisher(name string) witness.PublisherConfig {
	cfg := witness.PublisherConfig{Seed: r.Seed, Name: name, Servers: serverURLs(), Rate: publishRate, Log: r.logFile(name)}
	cfg.URL, cfg.Token = "http://"+address(api)+httpPort, httpToken
	if r.crowded() {
		cfg.Rate = crowdedRate
	}
	if r.Mode != "" {
		cfg.Rate, cfg.Calm, cfg.Room, cfg.Below = flatOut, true, manyOnTheirWay, fewJobs
	}
	return cfg
}

func (r *rig) worker(name string, version int) []string {
	return r.mulligan(name, "worker", "--config", r.configFile(name, version))
}

// mulligan is how a worker or scheduler runs, its clock being as wrong as it is
// drawn.
func (r *rig) mulligan(name string, args ...string) []string {
	program := programMulligan
	if r.skews[name] != 0 {
		program = programSkewed
	}
	if r.raced() {
		program += raceSuffix
	}
	// With a user of its own in the URL it does not show our token to the servers.
	server := strings.ReplaceAll(serverURL(), "nats://", "nats://jobs:jobs@")
	return append([]string{r.program(program)}, append(args, "--server", server, "--http", httpPort, "--log-format", "json")...)
}

// command runs mulligan to its end, where operators are.
func (r *rig) command(ctx context.Context, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", operator, r.program(programMulligan)}, args...)...).CombinedOutput()
}

func (r *rig) program(name string) string  { return filepath.Join(r.Bin, name) }
func (r *rig) roleFile(name string) string { return filepath.Join(r.Dir, name+".json") }
func (r *rig) logFile(name string) string  { return filepath.Join(r.Dir, saidDir, name+".jsonl") }

func (r *rig) configFile(worker string, version int) string {
	return filepath.Join(r.Dir, fmt.Sprintf("%s-v%d.yaml", worker, version))
}

// outage takes the downstream away for a while, or puts one in its place that
// refuses everything.
func (r *rig) outage(ctx context.Context, f fault) error {
	if f.With == "gone" {
		return r.down(ctx, f, syscall.SIGKILL)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p := r.processes[downstream]
	usual := p.args
	r.broke(p.end(syscall.SIGKILL))
	refuses := p.become([]string{self, downstream, "-config", r.roleFile(refusing)})
	wait(ctx, f.For)
	r.broke(p.end(syscall.SIGKILL))
	return errors.Join(refuses, p.become(usual), served(context.WithoutCancel(ctx)))
}
