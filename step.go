package mulligan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// ErrInDoubt says that nobody knows whether an effect happened. A handler that
// returns it, wrapped or not, has its job spent as [InDoubt]: a person decides.
var ErrInDoubt = errors.New("mulligan: in doubt")

// Steps keeps what became of the steps of one job. A worker gives one to each
// job whose effect is keyed or once; handlers use it through [Step].
type Steps interface {
	// Begin returns the recorded result of a step, or nil if its function is to
	// be called. It fails with [ErrInDoubt] if nobody knows whether the step's
	// effect happened and it must not happen twice.
	Begin(ctx context.Context, name string) (*Result, error)
	// End records the result of a step's function and returns the one that
	// stands: the first to be recorded.
	End(ctx context.Context, name string, result []byte) (*Result, error)
	// Fail records that the function of a step failed and returns its error. If
	// the effect certainly did not happen, the step may begin anew.
	Fail(ctx context.Context, name string, err error) error
}

// A StepRecord is what the record of a key knows of one step.
type StepRecord struct {
	Name string `json:"name"`
	// Begun is when its function was called, and Run identifies that call; both
	// are kept for once kinds only.
	Begun time.Time `json:"begun,omitzero"`
	Run   string    `json:"run,omitempty"`
	// Result is nil while its end is not known.
	Result *Result `json:"result,omitempty"`
}

// Open reports whether the step was begun and its end is not known.
func (s *StepRecord) Open() bool { return s.Result == nil && s.Run != "" }

// Step returns the named step of the record, or nil.
func (r *Record) Step(name string) *StepRecord {
	for i := range r.Steps {
		if r.Steps[i].Name == name {
			return &r.Steps[i]
		}
	}
	return nil
}

// OpenStep returns a step that was begun and whose end is not known, or nil.
func (r *Record) OpenStep() *StepRecord {
	for i := range r.Steps {
		if r.Steps[i].Open() {
			return &r.Steps[i]
		}
	}
	return nil
}

// OpenSteps names all steps that were begun and whose end is not known.
func (r *Record) OpenSteps() (names []string) {
	for i := range r.Steps {
		if r.Steps[i].Open() {
			names = append(names, r.Steps[i].Name)
		}
	}
	return names
}

// MaxSteps is how many steps a job may have.
const MaxSteps = 256

type stepping struct{} // in the context of a step's function

var stepName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,48}$`)

// StepKey is the idempotency key of one step of the job for the downstream: the
// same at every attempt, different for every kind, ID and step, at most 255
// printable ASCII characters.
func (j *Job) StepKey(step string) string {
	key := j.Key() + "/" + step
	if len(key) <= maxText {
		return key
	}
	return j.hashedKey() + "/" + step
}

// Step does one part of a job's work, once per key: fn is called unless an
// earlier attempt recorded its result, which is then returned instead. So when
// a job has charged a card and the mail that follows fails, the retry does not
// charge again. fn should hand job.StepKey(name) to its downstream as the
// idempotency key.
//
// A job may have many steps, up to [MaxSteps], one behind the other or side by
// side but not within each other; each has a name of its own, 1 to 48 letters,
// digits, _ and -. Results are stored as JSON, all of them together
// within the kind's MaxResult: of one that does not fit Step returns the result
// once, and an error wrapping [ErrNotKept] ever after.
//
// Around a step [Policy.Do] may be, and within its fn: of what is done a further
// attempt gets the result.
//
// When fn was called and its end is not known, after a crash or a doubtful
// error, a keyed job calls it again, with the same key. In a once job Step then
// fails with [ErrInDoubt], which the handler must return. A once job that uses
// steps must do everything that must not happen twice in one: between two steps
// a crash is no doubt, and the job runs again.
//
// Step is for keyed and once kinds; in a pure kind it is a permanent error.
func Step[T any](ctx context.Context, job *Job, name string, fn func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if job.Steps == nil {
		return none, Permanent(Typed("no_steps", fmt.Errorf("step %.60q: kind %s is pure, or the job was not given by a worker: only keyed and once kinds have steps", name, job.Kind)))
	}
	if !stepName.MatchString(name) {
		return none, Permanent(Typed("bad_step", fmt.Errorf("step %.60q is not 1 to 48 letters, digits, _ and -", name)))
	}
	if within := ctx.Value(stepping{}); within != nil {
		return none, Permanent(Typed("bad_step", fmt.Errorf("step %s is within step %s: one behind the other, not one in the other", name, within)))
	}
	known, err := job.Steps.Begin(ctx, name)
	if err != nil {
		return none, err
	}
	if known != nil {
		return stepResult[T](name, known)
	}
	v, err := fn(context.WithValue(ctx, stepping{}, name))
	if err != nil {
		return none, job.Steps.Fail(ctx, name, err)
	}
	b, err := json.Marshal(v)
	if err != nil { // the step stays begun: its effect is not lost on anybody
		return none, Permanent(Typed("bad_result", fmt.Errorf("encode the result of step %s: %w", name, err)))
	}
	stands, err := job.Steps.End(ctx, name, b)
	if err != nil {
		return none, err
	}
	if stands.Fingerprint == FingerprintOf(b) {
		return v, nil
	}
	return stepResult[T](name, stands)
}

// ErrNotKept is returned by [Step] for the result of a step that was done in an
// earlier attempt and was too large to be kept.
var ErrNotKept = errors.New("mulligan: result not kept")

func stepResult[T any](name string, r *Result) (v T, err error) {
	if r.TooLarge {
		return v, Permanent(Typed("not_kept", fmt.Errorf("%w: step %s is done and its %d bytes were over the limit; raise the kind's MaxResult, or return less", ErrNotKept, name, r.Size)))
	}
	if err := json.Unmarshal(r.Data, &v); err != nil {
		return v, Permanent(Typed("bad_result", fmt.Errorf("decode the result of step %s: %w", name, err)))
	}
	return v, nil
}
