package api

import (
	"context"
	"net/http"
)

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, map[string]string{"status": "alive"})
}

// waiting answers while there is nothing to ask.
func (s *Server) waiting() http.Handler {
	m := http.NewServeMux()
	s.route(m, "GET", "/healthz", s.healthz)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		drain(r)
		s.refuse(w, r, &problem{Type: "not-ready", Status: http.StatusServiceUnavailable, retryAfter: soon, Detail: "waiting for NATS; nothing was stored"})
	})
	return s.checked(m)
}

func (s *Server) readyz(room *rooms) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if why := s.unready(r.Context(), room); why != "" {
			s.refuse(w, r, &problem{Type: "not-ready", Status: http.StatusServiceUnavailable, retryAfter: soon, Detail: why})
			return
		}
		s.answer(w, http.StatusOK, map[string]string{"status": "ready"})
	}
}

// unready says why no jobs should be sent here; nothing if they should.
func (s *Server) unready(ctx context.Context, room *rooms) string {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if room.ask(ctx) != nil {
		return "too many requests are in hand"
	}
	defer room.asked()
	if !s.Conn.IsConnected() {
		return "not connected to NATS"
	}
	if s.Ready != nil {
		if err := s.Ready(ctx); err != nil {
			return err.Error()
		}
	}
	return ""
}
