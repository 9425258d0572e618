// Package doctor checks whether an installation is as Mulligan needs it, and
// says in a line each what to do about what is not.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// A Status is how grave a finding is.
type Status string

const (
	OK   Status = "ok"
	Warn Status = "warn" // it works, but not as it should
	Fail Status = "fail" // jobs may be lost, or do not run
)

// A Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Detail says what was found and Do what to do about it.
	Detail string `json:"detail"`
	Do     string `json:"do,omitempty"`
}

// A Doctor looks at one installation. It changes nothing.
type Doctor struct {
	Conn     *nats.Conn
	Topology mulligan.Topology
	// Monitor is the URL of the server's monitoring page, which alone tells how
	// often it flushes to disk; empty leaves that check to a person.
	Monitor string
}

// findings collects what the checks of one visit find.
type findings struct {
	Doctor
	js    jetstream.JetStream
	found []Finding
}

const checkWait = 5 * time.Second // for all questions of one check

// Check makes every check that can be made and returns what it found. Checks
// that need what an earlier one missed are left out.
func (d Doctor) Check(ctx context.Context) ([]Finding, error) {
	js, err := jetstream.New(d.Conn)
	if err != nil {
		return nil, fmt.Errorf("doctor: %w", err)
	}
	f := &findings{Doctor: d, js: js}
	for _, check := range []func(context.Context) (goOn bool){f.server, f.jetStream, f.disk, f.streams, f.kinds, f.letters} {
		if ctx.Err() != nil {
			return f.found, ctx.Err()
		}
		within, cancel := context.WithTimeout(ctx, checkWait)
		goOn := check(within)
		cancel()
		if !goOn {
			break
		}
	}
	return f.found, nil
}

// Failed counts the findings that are failures.
func Failed(found []Finding) (n int) {
	for _, f := range found {
		if f.Status == Fail {
			n++
		}
	}
	return n
}

func (f *findings) ok(check, detail string, args ...any) {
	f.found = append(f.found, Finding{Check: check, Status: OK, Detail: fmt.Sprintf(detail, args...)})
}

func (f *findings) warn(check, detail, do string) {
	f.found = append(f.found, Finding{Check: check, Status: Warn, Detail: detail, Do: do})
}

func (f *findings) fail(check, detail, do string) {
	f.found = append(f.found, Finding{Check: check, Status: Fail, Detail: detail, Do: do})
}

// jetStream checks that the account may store anything at all.
func (f *findings) jetStream(ctx context.Context) bool {
	const check = "jetstream"
	info, err := f.js.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		f.fail(check, "JetStream is not enabled", "start nats-server with -js, and enable JetStream for this account")
		return false
	case err != nil:
		f.warn(check, "it does not tell: "+err.Error(), "check that this user may publish to $JS.API.INFO")
		return true
	}
	f.ok(check, "enabled, %d streams", info.Streams)
	return true
}

// letters counts what waits for a person or a scheduler.
func (f *findings) letters(ctx context.Context) bool {
	dead, err := f.js.Stream(ctx, f.Topology.DeadStream())
	if err != nil {
		return true // reported as a missing stream
	}
	info := dead.CachedInfo()
	n := info.State.Msgs
	switch limit := info.Config.MaxBytes; {
	case limit > 0 && info.State.Bytes >= uint64(limit)*9/10:
		f.fail("dead letters", fmt.Sprintf("%d dead letters fill the stream", n), "replay or purge some, or raise topology.dead_max_bytes: a full stream makes spent jobs wait")
	case n > 0:
		f.warn("dead letters", fmt.Sprintf("%d dead letters", n), "look with `mulligan dead ls`, and replay what should run again")
	default:
		f.ok("dead letters", "none")
	}
	f.spent(ctx)
	return true
}

func (f *findings) spent(ctx context.Context) {
	const check = "spent jobs"
	c, err := f.js.Consumer(ctx, f.Topology.RetriesStream(), mulligan.SchedulerConsumer)
	if err != nil {
		return // reported as a missing consumer
	}
	info := c.CachedInfo()
	if waiting := info.NumPending + uint64(info.NumAckPending); waiting > 0 {
		f.warn(check, fmt.Sprintf("%d spent jobs wait to be buried", waiting), "run `mulligan scheduler`; if one runs, read its log")
		return
	}
	f.ok(check, "none waits")
}
