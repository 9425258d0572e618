package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// job answers where a job is now, or with ?wait=10s how it ended or where it is
// when that time is up.
func (s *Server) job(room *rooms) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		job := mulligan.Job{Kind: r.PathValue("kind"), ID: r.PathValue("id")}
		wait, err := readWait(r.URL.Query())
		if err != nil {
			s.fail(w, r, &job, err)
			return
		}
		st, err := s.status(r.Context(), room, &job)
		if err == nil && wait > 0 && !ended(st) {
			st, err = s.wait(w, r, room, waiting{Status: st, wait: wait})
		}
		if err == nil && st.State == mulligan.StatusUnknown {
			err = &problem{Type: "unknown-job", Status: http.StatusNotFound, State: st.State,
				Detail: "nothing is known of this job: it was never published, or is a pure one that succeeded at its first attempt"}
		}
		if err != nil {
			s.fail(w, r, &job, err)
			return
		}
		s.answer(w, http.StatusOK, View(st))
	}
}

// ended reports whether waiting would change nothing.
func ended(st mulligan.Status) bool {
	return st.State == mulligan.StatusUnknown || st.Record != nil && st.Record.Ended()
}

// readWait returns how long the request wants to wait; zero is not at all.
func readWait(query url.Values) (time.Duration, error) {
	given, ok := query["wait"]
	if !ok {
		return 0, nil
	}
	wait, err := time.ParseDuration(given[0])
	if err != nil || wait < 0 || wait > maxWait || len(given) > 1 {
		return 0, &problem{Type: "bad-wait", Status: http.StatusBadRequest,
			Detail: fmt.Sprintf("wait is one duration such as 10s, at most %v", maxWait)}
	}
	return wait, nil
}

func (s *Server) status(ctx context.Context, room *rooms, job *mulligan.Job) (mulligan.Status, error) {
	if err := checkKind(job.Kind); err != nil {
		return mulligan.Status{}, err
	}
	if !s.Conn.IsConnected() {
		return mulligan.Status{}, mulligan.ErrUnavailable
	}
	if err := room.ask(ctx); err != nil {
		return mulligan.Status{}, err
	}
	defer room.asked()
	ctx, cancel := context.WithTimeout(ctx, s.answerTimeout())
	defer cancel()
	return s.Publisher.Status(ctx, job.Kind, job.ID)
}

// waiting is a job as it was found, and how long to wait for its end.
type waiting struct {
	mulligan.Status
	wait time.Duration
}

// wait takes a place and returns how the job ended, or what it was last when the
// time is up or the server closes.
func (s *Server) wait(w http.ResponseWriter, r *http.Request, room *rooms, job waiting) (mulligan.Status, error) {
	select {
	case room.waiting <- struct{}{}:
		defer func() { <-room.waiting }()
	default:
		return job.Status, &problem{Type: "too-many-waiting", Status: http.StatusServiceUnavailable, retryAfter: soon,
			Detail: "too many requests wait for a job here; come back, or ask without wait"}
	}
	// The server's own bounds are for requests that are answered at once. Passing
	// the one for reading would look like a client that went away.
	c, end := http.NewResponseController(w), time.Now().Add(job.wait+2*s.answerTimeout())
	_, _ = c.SetReadDeadline(end), c.SetWriteDeadline(end) // where they cannot be set, none is

	ctx, cancel := context.WithTimeout(r.Context(), job.wait)
	defer cancel()
	go func() {
		select {
		case <-room.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	last, err := s.Publisher.Wait(ctx, job.Kind, job.ID)
	if ctx.Err() != nil && r.Context().Err() == nil {
		err = nil
		if last.State == mulligan.StatusUnknown { // it did not come to a look
			last = job.Status
		}
	}
	return last, err
}
