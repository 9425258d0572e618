package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/mulligan-queue/mulligan"
)

// receiptView is the answer to a job that was accepted or is done.
type receiptView struct {
	Kind       string `json:"kind"`
	ID         string `json:"id"`
	Seq        uint64 `json:"seq,omitempty"` // where it is stored
	Duplicate  bool   `json:"duplicate"`
	Unverified bool   `json:"unverified,omitempty"` // a duplicate whose payload could not be compared
	State      string `json:"state,omitempty"`      // done
	ResultView
}

// publish stores the job that the request describes.
func (s *Server) publish(room *rooms) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		job := mulligan.Job{Kind: r.PathValue("kind")}
		receipt, err := s.accept(w, r, room, &job)
		if receipt.ID != "" {
			job.ID = receipt.ID // it may be a random one, which a repeated request needs
		}
		if err != nil {
			drain(r)
			s.fail(w, r, &job, err)
			return
		}
		v := receiptView{Kind: receipt.Kind, ID: receipt.ID, Seq: receipt.Seq, Duplicate: receipt.Duplicate, Unverified: receipt.Unverified}
		if receipt.State == mulligan.Done {
			v.State, v.ResultView = string(receipt.State), viewResult(receipt.Result)
			s.answer(w, http.StatusOK, v)
			return
		}
		w.Header().Set("Location", jobPath(receipt.Kind, receipt.ID))
		s.answer(w, http.StatusAccepted, v)
	}
}

// accept reads the request and publishes its job.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, room *rooms, job *mulligan.Job) (mulligan.Receipt, error) {
	if err := checkKind(job.Kind); err != nil {
		return mulligan.Receipt{}, err
	}
	if err := readHeaders(job, r.Header); err != nil {
		return mulligan.Receipt{}, err
	}
	if !s.Conn.IsConnected() { // and who never was knows no largest payload
		return mulligan.Receipt{}, mulligan.ErrUnavailable
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.Conn.MaxPayload())
	body := payload{Reader: r.Body, room: room}
	defer body.leave()
	var err error
	if job.Payload, err = io.ReadAll(&body); err != nil {
		return mulligan.Receipt{}, bodyProblem(err)
	}
	return s.store(r.Context(), room, job)
}

// store publishes a job. A key that has ended without success is a problem.
func (s *Server) store(ctx context.Context, room *rooms, job *mulligan.Job) (mulligan.Receipt, error) {
	if err := room.ask(ctx); err != nil {
		return mulligan.Receipt{}, err
	}
	defer room.asked()
	// The client would keep the job and send it after reconnecting, when this
	// request has long been answered.
	if !s.Conn.IsConnected() {
		return mulligan.Receipt{}, mulligan.ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, s.answerTimeout())
	defer cancel()
	receipt, err := s.Publisher.Publish(ctx, *job)
	if err == nil && receipt.Ended() && receipt.State != mulligan.Done {
		return receipt, endedBefore(receipt)
	}
	return receipt, err
}

// drain reads what is left of the body of a request that is refused: of a
// connection that is closed while its client writes, the answer may be lost. A
// client that waits to be told to send its body is not told to.
func drain(r *http.Request) {
	if r.ContentLength > maxDrained || r.Header.Get("Expect") != "" {
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, maxDrained)
}

func endedBefore(receipt mulligan.Receipt) *problem {
	return &problem{Type: "job-ended", Status: http.StatusConflict,
		State: string(receipt.State), Reason: string(receipt.Reason), Job: jobPath(receipt.Kind, receipt.ID),
		Detail: fmt.Sprintf("this key is %s: %s; it runs again only when an operator replays or resolves it", receipt.State, receipt.Reason)}
}

func bodyProblem(err error) error {
	var (
		over *http.MaxBytesError
		full *problem
	)
	switch {
	case errors.As(err, &full):
		return full
	case errors.As(err, &over):
		return tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &problem{Type: "slow-body", Status: http.StatusRequestTimeout, Detail: "the body took too long to arrive; nothing was stored"}
	}
	return &problem{Type: "broken-body", Status: http.StatusBadRequest, Detail: "the body ended early; nothing was stored"}
}

// checkKind refuses what no kind is called. It comes first: from a publisher the
// same error means that the server is set up wrongly.
func checkKind(kind string) error {
	if mulligan.ValidKindName(kind) != nil {
		return &problem{Type: "bad-kind", Status: http.StatusBadRequest,
			Detail: "a kind's name is dot-separated tokens of letters, digits, _ and -, such as email.send"}
	}
	return nil
}

// jobPath is the path of a job's state.
func jobPath(kind, id string) string {
	segment := url.PathEscape(id)
	switch id {
	case ".": // clients resolve these
		segment = "%2E"
	case "..":
		segment = "%2E%2E"
	}
	return "/v1/jobs/" + kind + "/" + segment
}
