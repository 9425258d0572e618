package witness

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// wrecked is evidence of a chaos run of a minute with 13 faults, seed 5, which was
// good: every fifth forty of the jobs of each publisher, so that tasks are whole.
func wrecked(t *testing.T) (e Evidence) {
	t.Helper()
	f, err := os.Open("testdata/wrecked.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&e); err != nil {
		t.Fatal(err)
	}
	return e
}

// A spoiling is something wrong with a key. It reports whether it could be done.
type spoiling struct {
	name  string
	spoil func(e *Evidence, s *story) bool
	floor float64 // of the keys it was done to, how many are found
}

func TestWhatIsWrongWithAKeyIsFoundAmongFaults(t *testing.T) {
	if r := Check(wrecked(t)); len(r.Violations) > 0 || len(r.Faults) < 5 {
		t.Fatalf("the run was %v", r)
	}
	for _, tt := range slices.Concat(spoiltCalls(), spoiltEnds(), spoiltReasons()) {
		t.Run(tt.name, func(t *testing.T) {
			e := wrecked(t)
			spoilt := map[string]bool{} // and whether it was found
			for key, s := range stories(&e) {
				if len(s.operated) == 0 && s.sent > 0 && tt.spoil(&e, s) {
					spoilt[key] = false
				}
			}
			for _, v := range Check(e).Violations {
				if key, _, _ := strings.Cut(v[len("I1 "):], ": "); !spoilt[key] {
					if _, ok := spoilt[key]; ok {
						spoilt[key] = true
					}
				}
			}
			found := 0
			for _, ok := range spoilt {
				if ok {
					found++
				}
			}
			if share := float64(found) / float64(len(spoilt)); len(spoilt) < 3 || share < tt.floor {
				t.Errorf("%d of %d are found, want %v of at least 3", found, len(spoilt), tt.floor)
			} else {
				t.Logf("%d of %d are found", found, len(spoilt))
			}
		})
	}
}

// republish changes what was published under the key.
func republish(e *Evidence, s *story, edit func(p *Published)) bool {
	for i := range e.Published {
		if p := &e.Published[i].Line; p.Kind == s.kind.name && p.ID == s.id {
			edit(p)
		}
	}
	return true
}

// rewrite changes the letter of the key.
func rewrite(e *Evidence, s *story, edit func(l *Letter)) bool {
	for i := range e.Letters {
		if len(s.letters) > 0 && e.Letters[i].Seq == s.letters[0].Seq {
			edit(&e.Letters[i])
			return true
		}
	}
	return false
}

func spoiltCalls() []spoiling {
	return []spoiling{
		{"a call before its time", func(e *Evidence, s *story) bool {
			return len(s.calls) > 0 && republish(e, s, func(p *Published) { p.NotBefore = s.calls[0].Began.Add(time.Second) })
		}, 1},
		{"a call behind its deadline", func(e *Evidence, s *story) bool {
			return len(s.calls) > 0 && len(s.letters) == 0 && republish(e, s, func(p *Published) { p.Deadline = s.calls[0].Began.Add(-2 * time.Second) })
		}, 0.9},
		{"an attempt too many", func(e *Evidence, s *story) bool {
			if len(s.letters) == 0 || s.letters[0].Reason != mulligan.AttemptsExhausted || len(s.calls) == 0 {
				return false
			}
			more := *s.calls[len(s.calls)-1]
			more.Began, more.Ended = more.Began.Add(time.Second), more.Ended.Add(time.Second)
			e.Calls = append(e.Calls, more)
			return true
		}, 0.8},
		{"an attempt that is not counted", func(_ *Evidence, s *story) bool {
			if len(s.calls) < 2 || s.calls[1].Attempt != 2 {
				return false
			}
			s.calls[1].Attempt = 1
			return true
		}, 0.5},
		{"a retry before its hint", func(_ *Evidence, s *story) bool {
			if len(s.calls) < 2 || s.calls[0].Answer.Hint == 0 {
				return false
			}
			s.calls[1].Began = s.calls[0].Ended.Add(s.calls[0].Answer.Hint / 2)
			return true
		}, 0.75},
		{"a done key is called again", func(e *Evidence, s *story) bool {
			if s.record == nil || s.record.State != mulligan.Done || len(s.calls) == 0 {
				return false
			}
			more := *s.calls[len(s.calls)-1]
			more.Began, more.Ended, more.Answer.Effect = more.Began.Add(20*time.Second), more.Ended.Add(20*time.Second), false
			e.Calls = append(e.Calls, more)
			return true
		}, 0.7},
		{"a second effect", func(_ *Evidence, s *story) bool {
			if len(s.calls) < 2 || s.kind.effect == mulligan.Pure {
				return false
			}
			s.calls[0].Answer.Effect, s.calls[1].Answer.Effect = true, true
			return true
		}, 1},
	}
}

func spoiltEnds() []spoiling {
	return []spoiling{
		{"a key that is lost", func(e *Evidence, s *story) bool {
			if s.kind.effect == mulligan.Pure || len(s.acks) == 0 || len(s.conflicts) > 0 {
				return false
			}
			delete(e.Records, s.key)
			e.Letters = slices.DeleteFunc(e.Letters, func(l Letter) bool { return len(s.letters) > 0 && l.Seq == s.letters[0].Seq })
			return true
		}, 1},
		{"a result that nobody gave", func(_ *Evidence, s *story) bool {
			if s.record == nil || s.record.Result == nil {
				return false
			}
			s.record.Result.Data = []byte("receipt")
			return true
		}, 1},
		{"a failure that is not in the history", func(_ *Evidence, s *story) bool {
			if s.record == nil || len(s.record.History) == 0 || s.record.History[0].ErrorType == "" || new(checker).account(s, s.told())[0].call == nil {
				return false
			}
			s.record.History = s.record.History[1:]
			return true
		}, 0.85},
		{"a failure that nobody gave", func(_ *Evidence, s *story) bool {
			if s.record == nil || len(s.record.History) == 0 {
				return false
			}
			s.record.History = append(s.record.History, mulligan.Attempt{Number: 9, At: s.record.History[0].At, ErrorType: "http_500"})
			return true
		}, 1},
		{"a call that was never made", func(_ *Evidence, s *story) bool {
			if s.record == nil || len(s.record.History) == 0 {
				return false
			}
			s.record.History = append(s.record.History, mulligan.Attempt{Number: 1, At: s.record.History[0].At.Add(time.Second), Took: 100 * time.Millisecond, ErrorType: "no_answer"})
			return true
		}, 0.6},
	}
}

// spoiltReasons gives letters of each reason each other one, with histories that
// say the same.
func spoiltReasons() (all []spoiling) {
	was := func(s *story, r mulligan.Reason) bool { return len(s.letters) > 0 && s.letters[0].Reason == r }
	for _, reason := range []mulligan.Reason{mulligan.PermanentFailure, mulligan.InDoubt, mulligan.Crashed, mulligan.AttemptsExhausted, mulligan.TimeExhausted,
		mulligan.Expired, mulligan.TaskBudget, mulligan.UserBudget} {
		all = append(all, spoiling{"a letter that says " + string(reason), func(e *Evidence, s *story) bool {
			return !was(s, reason) && rewrite(e, s, func(l *Letter) {
				l.Reason = reason
				if n := len(l.History); n > 0 {
					l.History[n-1].Reason = reason
				}
			})
		}, 0.9})
	}
	return append(all,
		spoiling{"a letter that expired too early", func(e *Evidence, s *story) bool {
			return was(s, mulligan.Expired) && republish(e, s, func(p *Published) { p.Deadline = s.letters[0].BuriedAt.Add(5 * time.Second) })
		}, 0.9},
		spoiling{"a doubt of which the downstream had none", func(e *Evidence, s *story) bool {
			if !was(s, mulligan.InDoubt) || len(s.calls) == 0 || s.calls[len(s.calls)-1].Answer.Status < 500 {
				return false
			}
			s.calls[len(s.calls)-1].Answer.Outcome = notStarted
			return true
		}, 0.9})
}
