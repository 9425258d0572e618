package api

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/mulligan-queue/mulligan"
)

// A JobView is a job's state for people and programs, over HTTP and on the
// command line.
type JobView struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	// State is queued, running, waiting, spent, dead, done or unknown.
	State string `json:"state"`
	// Attempts since it was published or last replayed.
	Attempts int `json:"attempts"`
	// Reason says why it is spent or dead, or why it waits without having
	// failed.
	Reason mulligan.Reason `json:"reason,omitempty"`
	// ErrorType and Error are the last failure's; of a job that is done only
	// History has them.
	ErrorType string `json:"error_type,omitempty"`
	Error     string `json:"error,omitempty"`
	ResultView
	// Steps are the parts of the job that are known, in the order in which they
	// were begun.
	Steps []StepView `json:"steps,omitempty"`
	// History has the newest attempts and deferrals, oldest first, over all
	// replays.
	History []AttemptView `json:"history,omitempty"`
}

// An AttemptView is one attempt, or a deferral, and what was decided then.
type AttemptView struct {
	Number       int             `json:"number"` // 0 is a deferral before the first attempt
	At           time.Time       `json:"at"`
	TookSeconds  float64         `json:"took_seconds"`
	ErrorType    string          `json:"error_type,omitempty"`
	Error        string          `json:"error,omitempty"`
	Verb         mulligan.Verb   `json:"verb,omitempty"`
	Reason       mulligan.Reason `json:"reason,omitempty"`
	DelaySeconds float64         `json:"delay_seconds,omitempty"`
	// Tries is how many attempts it stands for, if more than one: with those that
	// calls inside the handler repeated.
	Tries int `json:"tries,omitempty"`
	// Times is how many deferrals in a row it stands for, if more than one.
	Times int `json:"times,omitempty"`
	// NotStarted: its effect certainly did not happen.
	NotStarted bool `json:"not_started,omitempty"`
	// Change is how the payload of the next attempt differs, as a JSON merge
	// patch.
	Change json.RawMessage `json:"change,omitempty"`
}

// A StepView is one step of a job. Its result is known by its size only.
type StepView struct {
	Name string `json:"name"`
	// State is done, or begun while its end is not known.
	State string `json:"state"`
	// At is when it ended, or else when it was begun.
	At             time.Time `json:"at,omitzero"`
	ResultSize     int       `json:"result_size,omitempty"` // in bytes
	ResultTooLarge bool      `json:"result_too_large,omitempty"`
}

// The states of a [StepView].
const (
	StepBegun = "begun"
	StepDone  = "done"
)

// A ResultView is a result in JSON, as [Value] shows it. An empty result is left
// out, and of one that was too large to keep only the size is known.
type ResultView struct {
	Result         json.RawMessage `json:"result,omitempty"`
	ResultEncoding string          `json:"result_encoding,omitempty"` // json, text or base64
	ResultSize     int             `json:"result_size,omitempty"`     // in bytes
	ResultTooLarge bool            `json:"result_too_large,omitempty"`
}

// View returns the view of a status.
func View(st mulligan.Status) JobView {
	v := JobView{Kind: st.Kind, ID: st.ID, State: st.State}
	r := st.Record
	if r == nil {
		return v
	}
	v.Attempts, v.Reason, v.ResultView = r.Attempts, r.Reason, viewResult(r.Result)
	if r.State != mulligan.Done {
		v.ErrorType, v.Error = lastFailure(r)
	}
	if !r.Ended() && r.Move != nil {
		v.Reason = r.Move.Reason
	}
	v.Steps, v.History = viewSteps(r.Steps), viewHistory(r.History)
	return v
}

func viewSteps(steps []mulligan.StepRecord) (views []StepView) {
	for _, s := range steps {
		v := StepView{Name: s.Name, State: StepBegun, At: s.Begun}
		if r := s.Result; r != nil {
			v.State, v.At, v.ResultSize, v.ResultTooLarge = StepDone, r.At, r.Size, r.TooLarge
		}
		views = append(views, v)
	}
	return views
}

func viewHistory(history []mulligan.Attempt) (views []AttemptView) {
	for _, a := range history {
		views = append(views, AttemptView{
			Number: a.Number, At: a.At, TookSeconds: a.Took.Seconds(), ErrorType: a.ErrorType, Error: a.Error,
			Verb: a.Verb, Reason: a.Reason, DelaySeconds: a.Delay.Seconds(), Tries: a.Tries, Times: a.Times, NotStarted: a.NotStarted, Change: a.Change,
		})
	}
	return views
}

// lastFailure is what the last move was decided for, or else the newest failure
// in the history: a job that expired while it waited has one, too.
func lastFailure(r *mulligan.Record) (errorType, text string) {
	if m := r.Move; m != nil && (m.ErrorType != "" || m.Error != "") {
		return m.ErrorType, m.Error
	}
	for i := len(r.History) - 1; i >= 0; i-- {
		if a := r.History[i]; a.ErrorType != "" || a.Error != "" {
			return a.ErrorType, a.Error
		}
	}
	return "", ""
}

func viewResult(r *mulligan.Result) ResultView {
	if r == nil {
		return ResultView{}
	}
	v := ResultView{ResultSize: r.Size, ResultTooLarge: r.TooLarge}
	v.Result, v.ResultEncoding = Value(r.Data)
	return v
}

// Value shows bytes in JSON: JSON as the value it is, other text as a string.
// What is neither is a string of base64, which the encoding says. Nothing is
// nothing.
func Value(b []byte) (value json.RawMessage, encoding string) {
	switch {
	case len(b) == 0:
		return nil, ""
	case !utf8.Valid(b):
		return quote(b), "base64"
	case json.Valid(b) && shallow(b):
		return b, "json"
	}
	return quote(string(b)), "text"
}

// shallow reports whether JSON is not nested so deeply that an answer which has
// it could not be read: readers refuse what is far deeper.
func shallow(b []byte) bool {
	const most = 500
	depth := 0
	for d := json.NewDecoder(bytes.NewReader(b)); depth <= most; {
		switch t, err := d.Token(); {
		case err != nil:
			return true
		case t == json.Delim('[') || t == json.Delim('{'):
			depth++
		case t == json.Delim(']') || t == json.Delim('}'):
			depth--
		}
	}
	return false
}

// quote returns text as a JSON string, bytes as one of base64.
func quote[T string | []byte](v T) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and bytes only
	}
	return b
}
