package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// Load is how a publisher publishes in a run that is about load. The zero Load
// is a run that is not.
type Load struct {
	Calm bool // as the downstream is
	// Room is how many jobs may be on their way at once; zero is 64.
	Room int
	// Below, over zero, holds the publisher back for as long as the stream of jobs
	// has this many or more: what it then publishes is what workers take.
	Below uint64
	// Sheds has the publisher give up a job that was turned away, so that what it
	// publishes is no more than its rate, however much of that is refused.
	Sheds bool
	// URL and Token are of the HTTP API, by which the publisher of one job at a
	// time publishes; empty is the library.
	URL, Token string
}

const lookEvery = 50 * time.Millisecond

// watch looks whether the stream of jobs is full, as Below says, until ctx ends.
func (p *publisher) watch(ctx context.Context) {
	for pause(ctx, lookEvery) {
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := p.js.Stream(asking, mulligan.Topology{}.JobsStream())
		cancel()
		p.full.Store(err != nil || s.CachedInfo().State.Msgs >= p.cfg.Below)
	}
}

// errTurnedAway is an answer that says: nothing was stored, come back later.
var errTurnedAway = errors.New("witness: told to come back")

// turnedAway reports whether an error says that nothing was stored, for now.
func turnedAway(err error) bool {
	return errors.Is(err, errTurnedAway) || errors.Is(err, mulligan.ErrStreamFull) || errors.Is(err, mulligan.ErrUnavailable)
}

// post publishes over HTTP, as the README says.
func (p *publisher) post(ctx context.Context, j *Published) (mulligan.Receipt, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.URL+"/v1/jobs/"+j.Kind, bytes.NewReader(payload(p.cfg.Seed, j)))
	if err != nil {
		return mulligan.Receipt{}, err
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + p.cfg.Token, "Idempotency-Key": j.ID, "Mulligan-User": j.User, "Mulligan-Task": j.Task} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"Mulligan-Deadline": j.Deadline, "Mulligan-Not-Before": j.NotBefore} {
		if !at.IsZero() {
			req.Header.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return mulligan.Receipt{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	var said struct {
		Duplicate bool           `json:"duplicate"`
		State     mulligan.State `json:"state"`
		Type      string         `json:"type"`
		Detail    string         `json:"detail"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil {
		return mulligan.Receipt{}, err
	}
	j.Status, j.RetryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
	switch code := resp.StatusCode; {
	case code == http.StatusOK, code == http.StatusAccepted:
		return mulligan.Receipt{Duplicate: said.Duplicate, State: said.State}, nil
	case code == http.StatusConflict: // the key has ended
		return mulligan.Receipt{Duplicate: true, State: said.State}, nil
	case code == http.StatusUnprocessableEntity:
		return mulligan.Receipt{}, fmt.Errorf("%w: %s", mulligan.ErrKeyConflict, said.Detail)
	case code == http.StatusServiceUnavailable && !strings.HasSuffix(said.Type, "/unconfirmed"):
		return mulligan.Receipt{}, fmt.Errorf("%w: %s", errTurnedAway, said.Detail)
	case code >= http.StatusInternalServerError:
		return mulligan.Receipt{}, fmt.Errorf("%w: %s", mulligan.ErrUnconfirmed, said.Detail)
	}
	return mulligan.Receipt{}, fmt.Errorf("%w: %d: %s", mulligan.ErrBadJob, resp.StatusCode, said.Detail)
}

// Answers are the answers that a publisher has written down in its log.
func Answers(path string) (all []Said[Published], err error) {
	lines, _, err := readLines(path)
	for _, l := range lines {
		if l.Published != nil && l.Published.What != Trying {
			all = append(all, Said[Published]{l.At, *l.Published})
		}
	}
	return all, err
}

// Refusal says what is wrong with an answer that a publisher had at a time, if
// anything is: whom the HTTP API turns away, it tells when to come back, and
// nothing else is wrong with a job of the run, but that one which is sent again may
// be past its deadline.
func (p Published) Refusal(at time.Time) string {
	switch {
	case p.Status == http.StatusBadRequest && !p.Deadline.IsZero() && p.Deadline.Before(at):
		return ""
	case p.Status == http.StatusServiceUnavailable && p.RetryAfter == "":
		return "503 without Retry-After"
	case p.Status == 0, p.Status == http.StatusServiceUnavailable, p.What == Acked:
		return ""
	}
	return fmt.Sprintf("%d: %s", p.Status, p.Error)
}

// Streams are the streams and buckets of a run, and what they hold.
func Streams(ctx context.Context, js jetstream.JetStream) (map[string]jetstream.StreamState, error) {
	held := map[string]jetstream.StreamState{}
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		held[info.Config.Name] = info.State
	}
	return held, list.Err()
}
