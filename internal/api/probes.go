package api

import (
	"context"
	"net/http"
	"strconv"
)

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, map[string]string{"status": "alive"})
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	why := ""
	if !s.Conn.IsConnected() {
		why = "not connected to NATS"
	} else if s.Ready != nil {
		if err := s.Ready(ctx); err != nil {
			why = err.Error()
		}
	}
	if why != "" {
		w.Header().Set("Retry-After", strconv.Itoa(soon))
		s.refuse(w, r, &problem{Type: "not-ready", Status: http.StatusServiceUnavailable, Detail: why})
		return
	}
	s.answer(w, http.StatusOK, map[string]string{"status": "ready"})
}
