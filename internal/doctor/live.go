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

const answersFor = 300 * time.Millisecond // how long processes may take to answer

// Live finds the live processes of a service that serve a topology, by asking
// all of them and taking what is answered within a moment.
func Live(ctx context.Context, nc *nats.Conn, t mulligan.Topology, service string) ([]Process, error) {
	subject, err := micro.ControlSubject(micro.InfoVerb, service, "")
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", service, err)
	}
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", service, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.PublishRequest(subject, inbox, nil); err != nil {
		return nil, fmt.Errorf("look for %s: %w", service, err)
	}
	within, cancel := context.WithTimeout(ctx, answersFor)
	defer cancel()
	var live []Process
	for {
		m, err := sub.NextMsgWithContext(within)
		if err != nil {
			return sorted(live), ended(ctx, err)
		}
		var info micro.Info
		// Nobody serves the subject: the server says so without a body.
		if json.Unmarshal(m.Data, &info) != nil || info.Metadata["prefix"] != t.JobsRoot() {
			continue
		}
		live = append(live, Process{ID: info.ID, Host: info.Metadata["host"], PID: info.Metadata["pid"],
			Downstreams: list(info.Metadata["downstreams"]), Kinds: list(info.Metadata["kinds"]), Declared: declarations(info.Metadata["declared"])})
	}
}

// ended tells the end of waiting, which is no error, from the caller's.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) {
		return nil
	}
	return fmt.Errorf("look for live processes: %w", err)
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
