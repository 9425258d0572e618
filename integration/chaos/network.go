//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// Each process has a network namespace of its own name, with one link to a
// bridge, on which the rig itself is too.
const (
	rigAddress = "10.77.0.1"
	nobodysMAC = "02:00:00:00:00:ff"
	link       = "eth0" // of each namespace
)

func names(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i+1))
	}
	return all
}

func servers() []string    { return names("nats", 3) }
func workers() []string    { return names("worker", 3) }
func schedulers() []string { return names("scheduler", 2) }
func publishers() []string { return names("publisher", 4) }

const (
	downstream = "downstream"
	operator   = "operator"
	api        = "api"   // the HTTP API, in runs under load
	smallDisk  = "nats3" // the server whose disk fills up
)

// everyone is who can be killed.
func everyone() []string {
	return slices.Concat(servers(), workers(), schedulers(), publishers(), []string{downstream})
}

func places() []string { return append(everyone(), operator, api) }

func address(name string) string {
	return fmt.Sprintf("10.77.0.%d", 10+slices.Index(places(), name))
}

// sh runs one program of iproute2.
func sh(ctx context.Context, words string) error {
	args := strings.Fields(words)
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", words, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func all(ctx context.Context, lines ...string) error {
	for _, l := range lines {
		if err := sh(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// wire makes the bridge and the namespaces.
func wire(ctx context.Context) error {
	err := all(ctx, "ip link set lo up", "ip link add bridge type bridge", "ip addr add "+rigAddress+"/24 dev bridge", "ip link set bridge up")
	if err != nil {
		return err
	}
	for _, name := range places() {
		err := all(ctx,
			"ip netns add "+name,
			"ip link add "+name+" type veth peer name "+link+" netns "+name,
			"ip link set "+name+" master bridge up",
			"ip -n "+name+" addr add "+address(name)+"/24 dev "+link,
			"ip -n "+name+" link set lo up",
			"ip -n "+name+" link set "+link+" up")
		if err != nil {
			return err
		}
	}
	return nil
}

// A way is one direction of a link between two places.
type way struct{ from, to string }

// silence sends what goes a way to a card that nobody has, as a network does
// that loses everything: neither side is told.
func (w way) silence(ctx context.Context) error {
	return sh(ctx, fmt.Sprintf("ip -n %s neigh replace %s lladdr %s dev %s nud permanent", w.from, address(w.to), nobodysMAC, link))
}

func (w way) heal(ctx context.Context) error {
	return sh(ctx, fmt.Sprintf("ip -n %s neigh del %s dev %s", w.from, address(w.to), link))
}

// slow bounds what leaves a place.
func slow(ctx context.Context, name, rate string) error {
	return sh(ctx, fmt.Sprintf("tc -n %s qdisc replace dev %s root tbf rate %s burst 16kb latency 500ms", name, link, rate))
}

func fast(ctx context.Context, name string) error {
	return sh(ctx, fmt.Sprintf("tc -n %s qdisc del dev %s root", name, link))
}

// reset cuts every connection that a place has.
func reset(ctx context.Context, name string) error {
	return sh(ctx, "ss -N "+name+" -t -K dst 10.77.0.0/24")
}

// healed says what of the network is still not as it was.
func healed(ctx context.Context) error {
	for _, name := range places() {
		out, err := exec.CommandContext(ctx, "ip", "-n", name, "neigh", "show", "nud", "permanent").Output()
		if err != nil || len(out) > 0 {
			return fmt.Errorf("%s is still cut off: %s %w", name, out, err)
		}
		out, err = exec.CommandContext(ctx, "tc", "-n", name, "qdisc", "show", "dev", link, "root").Output()
		if err != nil || strings.Contains(string(out), "tbf") {
			return fmt.Errorf("%s is still slow: %s %w", name, out, err)
		}
	}
	return nil
}
