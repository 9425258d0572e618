package consumer

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// StateSubject is where every worker answers a request with its [State], as JSON.
const StateSubject = "$SRV.STATE." + ServiceName

// State is how a worker stands.
type State struct {
	Prefix      string            `json:"prefix"` // of the subjects of jobs
	Host        string            `json:"host"`
	PID         string            `json:"pid"`
	Downstreams []DownstreamState `json:"downstreams"`
}

// DownstreamState is how a downstream stands in one worker.
type DownstreamState struct {
	Name string `json:"name"`
	// Held is why its jobs wait: open, credential, gate, or probe if probes decide
	// just now; empty if they do not wait. Until is when that is looked at again.
	Held  string    `json:"held,omitempty"`
	Until time.Time `json:"until,omitzero"`
	// CredentialRefused: from when it refused the credential until a probe is accepted.
	CredentialRefused bool `json:"credential_refused,omitempty"`
	// OneUser is why it would be held if that were not of one user's calls alone:
	// open or credential.
	OneUser  string  `json:"one_user,omitempty"`
	InHand   int     `json:"in_hand"`   // messages pulled and not let go of
	Limit    int     `json:"limit"`     // calls that may be in flight
	InFlight int     `json:"in_flight"` // calls that are
	Tokens   float64 `json:"tokens"`    // retries saved
	// Stuck says which of its jobs wait in vain.
	Stuck []Stuck `json:"stuck,omitempty"`
	// Warnings are those of [budget.StormWarnings].
	Warnings []string `json:"warnings,omitempty"`
}

// tellState answers whoever asks how the worker stands.
func (w *Worker) tellState() (*nats.Subscription, error) {
	return w.Conn.Subscribe(StateSubject, func(m *nats.Msg) {
		b, err := json.Marshal(w.state(time.Now()))
		if err == nil {
			_ = m.Respond(b) // whoever asked may be gone
		}
	})
}

func (w *Worker) state(now time.Time) State {
	host, _ := os.Hostname() // empty if unknown
	s := State{Prefix: w.Topology.JobsRoot(), Host: host, PID: fmt.Sprint(os.Getpid()), Downstreams: []DownstreamState{}}
	for _, l := range w.lanes {
		s.Downstreams = append(s.Downstreams, l.state(now))
	}
	return s
}
