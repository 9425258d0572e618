package api

import (
	"context"
	"net/http"

	"github.com/mulligan-queue/mulligan"
)

// job answers where a job is now.
func (s *Server) job(w http.ResponseWriter, r *http.Request) {
	job := mulligan.Job{Kind: r.PathValue("kind"), ID: r.PathValue("id")}
	st, err := s.status(r.Context(), &job)
	if err != nil {
		s.fail(w, r, &job, err)
		return
	}
	s.answer(w, http.StatusOK, View(st))
}

func (s *Server) status(ctx context.Context, job *mulligan.Job) (mulligan.Status, error) {
	if err := checkKind(job.Kind); err != nil {
		return mulligan.Status{}, err
	}
	if !s.Conn.IsConnected() {
		return mulligan.Status{}, mulligan.ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	st, err := s.Publisher.Status(ctx, job.Kind, job.ID)
	if err == nil && st.State == mulligan.StatusUnknown {
		return st, &problem{Type: "unknown-job", Status: http.StatusNotFound, State: st.State,
			Detail: "nothing is known of this job: it was never published, or is a pure one that succeeded at its first attempt"}
	}
	return st, err
}
