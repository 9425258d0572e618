package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

// A Process is a live worker or scheduler, as it tells about itself.
type Process struct {
	ID          string   `json:"id"`
	Host        string   `json:"host"`
	PID         string   `json:"pid"`
	Downstreams []string `json:"downstreams,omitempty"`
	Kinds       []string `json:"kinds,omitempty"`
	// Declared is what each kind is declared as; a worker of an older program does
	// not tell.
	Declared map[string]Declaration `json:"-"`
}

// A Declaration is what a worker declares a kind as.
type Declaration struct {
	Effect      mulligan.Effect
	Fingerprint string // see [mulligan.Kind.Fingerprint]
}

// Whoever may answer is taken at his word, but not for ever.
const (
	answersFor = 300 * time.Millisecond // how long processes may take to answer
	maxAnswers = 1000
	maxAnswer  = 64 << 10 // bytes
)

// Live finds the live processes of a service that serve a topology, by asking
// all of them and taking what is answered within a moment.
func Live(ctx context.Context, nc *nats.Conn, t mulligan.Topology, service string) ([]Process, error) {
	subject, err := micro.ControlSubject(micro.InfoVerb, service, "")
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", service, err)
	}
	var live []Process
	err = ask(ctx, nc, subject, func(answer []byte) {
		if p, ok := readProcess(answer, t); ok {
			live = append(live, p)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", service, err)
	}
	return sorted(live), nil
}

// readProcess reads what a process tells, and reports whether it is one of a
// topology.
func readProcess(answer []byte, t mulligan.Topology) (Process, bool) {
	var info micro.Info
	if json.Unmarshal(answer, &info) != nil || info.Metadata["prefix"] != t.JobsRoot() {
		return Process{}, false
	}
	return Process{ID: info.ID, Host: info.Metadata["host"], PID: info.Metadata["pid"],
		Downstreams: list(info.Metadata["downstreams"]), Kinds: list(info.Metadata["kinds"]), Declared: declarations(info.Metadata["declared"])}, true
}

// states asks all live workers of a topology how they stand.
func states(ctx context.Context, nc *nats.Conn, t mulligan.Topology) (all []consumer.State, err error) {
	err = ask(ctx, nc, consumer.StateSubject, func(answer []byte) {
		if s, ok := readState(answer, t); ok {
			all = append(all, s)
		}
	})
	slices.SortFunc(all, func(a, b consumer.State) int { return strings.Compare(a.Host+a.PID, b.Host+b.PID) })
	return all, err
}

// readState is readProcess for how a worker stands.
func readState(answer []byte, t mulligan.Topology) (s consumer.State, ok bool) {
	ok = json.Unmarshal(answer, &s) == nil && s.Prefix == t.JobsRoot()
	return s, ok
}

// ask hands each answer to a request to take, of those that come within a moment.
// If nobody serves the subject, the server says so with an empty answer.
func ask(ctx context.Context, nc *nats.Conn, subject string, take func(answer []byte)) error {
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.PublishRequest(subject, inbox, nil); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, answersFor)
	defer cancel()
	for range maxAnswers {
		m, err := sub.NextMsgWithContext(within)
		if err != nil {
			return ended(ctx, err)
		}
		if len(m.Data) <= maxAnswer {
			take(m.Data)
		}
	}
	return nil
}

// ended tells the end of waiting, which is no error, from the caller's.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) {
		return nil
	}
	return err
}

func list(joined string) []string {
	names := slices.DeleteFunc(strings.Split(joined, ","), func(s string) bool { return s == "" })
	slices.Sort(names)
	return names
}

// declarations reads what a worker announces: name=effect:fingerprint, and so on.
func declarations(joined string) map[string]Declaration {
	all := map[string]Declaration{}
	for _, one := range list(joined) {
		name, as, _ := strings.Cut(one, "=")
		if effect, fingerprint, ok := strings.Cut(as, ":"); ok {
			all[name] = Declaration{mulligan.Effect(effect), fingerprint}
		}
	}
	return all
}

func sorted(live []Process) []Process {
	slices.SortFunc(live, func(a, b Process) int { return strings.Compare(a.Host+a.PID+a.ID, b.Host+b.PID+b.ID) })
	return live
}
