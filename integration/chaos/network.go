//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
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
	api        = "api"   // the HTTP API
	smallDisk  = "nats3" // the server whose disk fills up
)

// everyone is who can be killed.
func everyone() []string {
	return slices.Concat(servers(), workers(), schedulers(), publishers(), []string{downstream, operator, api})
}

// ours are the processes of the product.
func ours() []string { return slices.Concat(workers(), schedulers(), []string{api}) }

func address(name string) string {
	return fmt.Sprintf("10.77.0.%d", 10+slices.Index(everyone(), name))
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
	for _, name := range everyone() {
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

// stalled reports whether a connection between two places, also one that was
// closed, still waits for an answer to what it has sent again: TCP waits twice as
// long each time.
func (w way) stalled(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, "ss", "-N", w.from, "-tnoH", "state", "connected", "dst", address(w.to)).Output()
	return err != nil || sentAgain(string(out))
}

// sentAgain reports whether ss shows a connection that has sent something again,
// as in timer:(on,1.2sec,3).
func sentAgain(out string) bool {
	for _, timer := range strings.Split(out, "timer:(on,")[1:] {
		inside, _, _ := strings.Cut(timer, ")")
		if _, times, _ := strings.Cut(inside, ","); times != "" && times != "0" {
			return true
		}
	}
	return false
}

// patience is how long TCP may take to notice that a link is there again.
const patience = 5 * time.Second

// noticed returns when all connections of ways that were healed go on. What waits
// for longer is reset on both sides, so that nobody waits for as long as it was
// silent. What was closed meanwhile cannot be reset, and may arrive as late as that.
func noticed(ctx context.Context, ways []way, silent time.Duration) error {
	left := allNoticed(ctx, ways, patience)
	var errs []error
	for _, w := range left {
		errs = append(errs, sh(ctx, "ss -N "+w.from+" -t -K dst "+address(w.to)), sh(ctx, "ss -N "+w.to+" -t -K dst "+address(w.from)))
	}
	allNoticed(ctx, left, silent)
	return errors.Join(errs...)
}

// allNoticed returns the ways that are still stalled after a time.
func allNoticed(ctx context.Context, left []way, within time.Duration) []way {
	for deadline := time.Now().Add(within); ; {
		left = slices.DeleteFunc(slices.Clone(left), func(w way) bool { return !w.stalled(ctx) })
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		wait(ctx, 250*time.Millisecond)
	}
}

// serverOf is the server that a client is connected to.
func serverOf(ctx context.Context, client string) (string, error) {
	out, err := exec.CommandContext(ctx, "ss", "-N", client, "-tnH", "state", "established", "dport", "=", ":4222").Output()
	if err != nil {
		return "", fmt.Errorf("connections of %s: %w", client, err)
	}
	for _, name := range servers() {
		if strings.Contains(string(out), " "+address(name)+":4222") {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s is connected to no server", client)
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
