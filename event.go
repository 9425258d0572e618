package mulligan

import "time"

// What an [Event] tells.
const (
	EventRetry     = "retry"     // an attempt failed, another will follow
	EventDeferred  = "deferred"  // it runs later without having used an attempt
	EventRecovered = "recovered" // done, but not at the first attempt
	EventSpent     = "spent"     // it will not be tried again
	EventDead      = "dead"      // its letter is written
	EventReplayed  = "replayed"  // its letter was published again
)

// An Event is a copy of what happened to a job, for observers. It is sent
// without waiting and may be lost: the truth is in the record.
type Event struct {
	At        time.Time     `json:"at"`
	Event     string        `json:"event"`
	Kind      string        `json:"kind"`
	ID        string        `json:"id"`
	Attempt   int           `json:"attempt"`
	Verb      Verb          `json:"verb,omitempty"`
	Reason    Reason        `json:"reason,omitempty"`
	Delay     time.Duration `json:"delay_ns,omitempty"`
	ErrorType string        `json:"error_type,omitempty"`
	Error     string        `json:"error,omitempty"`
}
