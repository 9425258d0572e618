package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
)

// A problem is an answer that is not a success, as RFC 9457 has it. Its types
// are a closed set, written here as the last part of their URI. Kind, ID,
// State, Reason and Job are of the job that it is about.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Instance string `json:"instance,omitempty"`
	Kind     string `json:"kind,omitempty"`
	ID       string `json:"id,omitempty"`
	State    string `json:"state,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Job      string `json:"job,omitempty"` // the path of its state

	retryAfter int // in seconds; zero for none
}

// Error returns the detail.
func (p *problem) Error() string { return p.Detail }

// Seconds to wait before trying again.
const (
	soon  = 2  // a server that restarts
	later = 10 // what a person or a backlog must mend
)

// problemOf turns an error into the answer. What the client did not cause keeps
// its text out of the answer: that is for the log.
func problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	own := strings.TrimPrefix(err.Error(), "mulligan: ")
	switch {
	case errors.Is(err, mulligan.ErrNoKey):
		return &problem{Type: "no-key", Status: http.StatusBadRequest,
			Detail: "jobs of this kind have an effect: send an Idempotency-Key, the same one whenever you repeat the request"}
	case errors.Is(err, mulligan.ErrUnknownKind):
		return &problem{Type: "unknown-kind", Status: http.StatusBadRequest,
			Detail: "no worker has declared this kind, and it is not in the server's config file"}
	case errors.Is(err, mulligan.ErrBadID):
		return &problem{Type: "bad-id", Status: http.StatusBadRequest, Detail: own}
	case errors.Is(err, mulligan.ErrBadJob):
		return &problem{Type: "bad-job", Status: http.StatusBadRequest, Detail: own}
	case errors.Is(err, mulligan.ErrTooLarge):
		return tooLarge()
	case errors.Is(err, mulligan.ErrKeyConflict):
		return &problem{Type: "key-conflict", Status: http.StatusUnprocessableEntity,
			Detail: "this key belongs to another payload; use a new key, or send the same payload"}
	}
	return troubleOf(err)
}

// nothingStored ends the detail of what went wrong before a job was stored.
const nothingStored = "; nothing was stored"

// troubleOf is problemOf for what the client did not cause.
func troubleOf(err error) *problem {
	switch {
	case errors.Is(err, mulligan.ErrStreamFull):
		return &problem{Type: "stream-full", Status: http.StatusServiceUnavailable, retryAfter: later,
			Detail: "there is no room for more jobs" + nothingStored}
	case errors.Is(err, mulligan.ErrNoTopology):
		return &problem{Type: "not-provisioned", Status: http.StatusServiceUnavailable, retryAfter: later,
			Detail: "the streams do not exist yet" + nothingStored}
	case errors.Is(err, mulligan.ErrUnconfirmed):
		return &problem{Type: "unconfirmed", Status: http.StatusServiceUnavailable, retryAfter: soon,
			Detail: "the job may be stored; send it again with this id as its Idempotency-Key"}
	case errors.Is(err, mulligan.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrNoResponders):
		return &problem{Type: "unavailable", Status: http.StatusServiceUnavailable, retryAfter: soon,
			Detail: "NATS cannot be reached" + nothingStored}
	}
	return &problem{Type: "internal", Status: http.StatusInternalServerError, Detail: "the server's log says why"}
}

func tooLarge() *problem {
	return &problem{Type: "too-large", Status: http.StatusRequestEntityTooLarge,
		Detail: "payload and headers are over the limit; store the payload elsewhere and publish where it is"}
}

// refuse writes a problem.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, p *problem) {
	full := *p
	full.Type, full.Title = "/problems/"+p.Type, http.StatusText(p.Status)
	if p.Status != http.StatusRequestURITooLong {
		full.Instance = r.URL.EscapedPath()
	}
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	s.write(w, p.Status, full)
}

// fail answers with the problem that err is, for a job.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, job *mulligan.Job, err error) {
	p := *problemOf(err)
	p.Kind, p.ID = job.Kind, job.ID
	if r.Method != http.MethodPost { // it meant to store nothing
		p.Detail = strings.TrimSuffix(p.Detail, nothingStored)
	}
	if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		s.trouble.Warn().Err(err).Str("kind", job.Kind).Str("id", job.ID).Int("status", p.Status).Msg("HTTP request not served")
	}
	s.refuse(w, r, &p)
}

// answer writes a success.
func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	s.write(w, status, v)
}

func (s *Server) write(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // a result is shown as it is
	if err := e.Encode(v); err != nil {
		s.Log.Error().Err(err).Msg("HTTP answer not encoded")
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that is gone needs no answer
}
