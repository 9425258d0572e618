package cas_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/cas"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

var errNo = errors.New("no")

// shelf is a server with one bucket whose keys may have a time to live.
type shelf struct {
	*natstest.Env
	*cas.Bucket
	kv jetstream.KeyValue
}

func open(t *testing.T, e *natstest.Env) *shelf {
	t.Helper()
	kv, err := e.JS.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "shelf", LimitMarkerTTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	b, err := cas.Open(t.Context(), e.JS, "shelf")
	if err != nil {
		t.Fatal(err)
	}
	return &shelf{Env: e, Bucket: b, kv: kv}
}

func bubble(t *testing.T, do func(t *testing.T, s *shelf)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { do(t, open(t, natstest.InBubble(t))) })
}

// is checks the value of a key; an empty one is none.
func (s *shelf) is(t *testing.T, key, want string) {
	t.Helper()
	got, _, err := s.Load(t.Context(), key)
	if err != nil || string(got) != want || (got == nil) != (want == "") {
		t.Errorf("%s is %q, %v; want %q", key, got, err, want)
	}
}

// add appends to whatever is there.
func add(text string) func([]byte) (cas.Change, error) {
	return func(value []byte) (cas.Change, error) {
		return cas.Change{Value: append(value, text...)}, nil
	}
}

func (s *shelf) mustAdd(t *testing.T, key, text string) {
	t.Helper()
	if err := s.Update(t.Context(), "add", key, add(text)); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateCreatesChangesAndLeaves(t *testing.T) {
	s := open(t, natstest.Server(t))
	s.is(t, "k", "")
	s.mustAdd(t, "k", "a")
	s.is(t, "k", "a")
	s.mustAdd(t, "k", "b")
	s.is(t, "k", "ab")
	_, before, _ := s.Load(t.Context(), "k")
	if err := s.Update(t.Context(), "leave", "k", func([]byte) (cas.Change, error) { return cas.Change{}, nil }); err != nil {
		t.Error(err)
	}
	if err := s.Update(t.Context(), "refuse", "k", func([]byte) (cas.Change, error) { return cas.Change{Value: []byte("x")}, errNo }); !errors.Is(err, errNo) {
		t.Errorf("got %v, want what apply returned", err)
	}
	if _, after, _ := s.Load(t.Context(), "k"); after != before {
		t.Errorf("its revision went from %d to %d, though nothing was to be stored", before, after)
	}
	s.is(t, "k", "ab")
	s.is(t, "other", "")
}

// Who has seen a value asks for it only if it is not what is there, or if nothing is
// stored that would show that.
func TestWhatWasSeenIsNotReadAgain(t *testing.T) {
	unwritten := func(*testing.T, *shelf) cas.Sight { return cas.Unwritten() }
	written := func(t *testing.T, s *shelf) (seen cas.Sight) {
		if err := s.UpdateSeen(t.Context(), "write", "k", &seen, add("a")); err != nil {
			t.Fatal(err)
		}
		return seen
	}
	behind := func(t *testing.T, s *shelf) cas.Sight {
		seen := written(t, s)
		s.mustAdd(t, "k", "b")
		return seen
	}
	leave := func([]byte) (cas.Change, error) { return cas.Change{}, nil }
	refuse := func([]byte) (cas.Change, error) { return cas.Change{}, errNo }
	for _, tt := range []struct {
		name  string
		seen  func(t *testing.T, s *shelf) cas.Sight
		apply func([]byte) (cas.Change, error)
		err   error
		calls string
		is    string
	}{
		{"nothing was seen", func(*testing.T, *shelf) cas.Sight { return cas.Sight{} }, add("x"), nil, "load store", "x"},
		{"there is none, as was taken for granted", unwritten, add("x"), nil, "store", "x"},
		{"there is one", func(t *testing.T, s *shelf) cas.Sight { written(t, s); return cas.Unwritten() }, add("x"), nil, "store load store", "ax"},
		{"what was stored is still there", written, add("x"), nil, "store", "ax"},
		{"another has changed it", behind, add("x"), nil, "store load store", "abx"},
		{"nothing is stored", behind, leave, nil, "load", "ab"},
		{"it is refused", behind, refuse, errNo, "load", "ab"},
		{"it was deleted", func(t *testing.T, s *shelf) cas.Sight {
			seen := written(t, s)
			if err := s.kv.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			return seen
		}, add("x"), nil, "store load store", "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, natstest.Server(t))
			seen := tt.seen(t, s)
			var calls []string
			ctx := call.With(t.Context(), func(point string) {
				if name, before := strings.CutSuffix(point, " before"); before {
					calls = append(calls, strings.TrimPrefix(name, "x."))
				}
			})
			if err := s.UpdateSeen(ctx, "x", "k", &seen, tt.apply); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			if got := strings.Join(calls, " "); got != tt.calls {
				t.Errorf("calls: %s; want %s", got, tt.calls)
			}
			s.is(t, "k", tt.is)
			calls = nil
			if err := s.UpdateSeen(ctx, "x", "k", &seen, add("y")); err != nil || strings.Join(calls, " ") != "store" {
				t.Errorf("afterwards it was to be seen: %v, %v", calls, err)
			}
			s.is(t, "k", tt.is+"y")
		})
	}
}

// What is only read may be old. What stands still is certain once it was stored
// again, that there is nothing as well.
func TestWhatStaysTheSameIsCertainOnceItIsStored(t *testing.T) {
	for _, tt := range []struct{ name, old, now string }{
		{"nothing", "", ""},
		{"a value", "a", "a"},
		{"nothing, as it seemed", "", "b"},
		{"a value that has changed", "a", "b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *shelf) {
				if tt.old != "" {
					s.mustAdd(t, "k", tt.old)
				}
				_, before, err := s.Load(t.Context(), "k")
				if err != nil {
					t.Fatal(err)
				}
				var saw []string
				err = s.Update(t.Context(), "sure", "k", func(value []byte) (cas.Change, error) {
					if saw = append(saw, string(value)); len(saw) == 1 && tt.now != tt.old { // it had changed when this was read
						if _, err := s.kv.PutString(t.Context(), "k", tt.now); err != nil {
							t.Error(err)
						}
					}
					return cas.Change{Value: value, None: value == nil}, nil
				})
				if err != nil || saw[len(saw)-1] != tt.now || (len(saw) > 1) != (tt.now != tt.old) {
					t.Errorf("saw %q, %v; want %q at last", saw, err, tt.now)
				}
				s.is(t, "k", tt.now)
				if _, after, err := s.Load(t.Context(), "k"); err != nil || after <= before {
					t.Errorf("revision %d, %v; want one behind %d", after, err, before)
				}
			})
		})
	}
}

func TestABucketThatIsMissingIsAnError(t *testing.T) {
	e := natstest.Server(t)
	if _, err := cas.Open(t.Context(), e.JS, "nothing"); !errors.Is(err, jetstream.ErrStreamNotFound) || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("got %v, want an error that names the bucket", err)
	}
}

func TestNoWriterLosesItsChangeToAnother(t *testing.T) {
	const writers, each = 8, 20
	s := open(t, natstest.Server(t))
	var applied atomic.Int64
	var done sync.WaitGroup
	for range writers {
		done.Go(func() {
			for range each {
				err := s.Update(t.Context(), "count", "k", func(value []byte) (cas.Change, error) {
					applied.Add(1)
					n, _ := strconv.Atoi(string(value))
					return cas.Change{Value: strconv.AppendInt(nil, int64(n+1), 10)}, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	s.is(t, "k", fmt.Sprint(writers*each))
	if applied.Load() == writers*each {
		t.Error("no writer met another: the test shows nothing")
	}
}

func TestAChangeThatCameBetweenIsReadAgain(t *testing.T) {
	s := open(t, natstest.Server(t))
	s.mustAdd(t, "k", "a")
	once := sync.OnceFunc(func() { s.mustAdd(t, "k", "b") })
	ctx := call.With(t.Context(), func(point string) {
		if point == "third.store before" {
			once()
		}
	})
	var seen []string
	err := s.Update(ctx, "third", "k", func(value []byte) (cas.Change, error) {
		seen = append(seen, string(value))
		return add("c")(value)
	})
	if err != nil || strings.Join(seen, ",") != "a,ab" {
		t.Errorf("apply was given %q, %v; want a, then ab", seen, err)
	}
	s.is(t, "k", "abc")
}

func TestAKeyThatIsGoneCanBeWrittenAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, s *shelf) error
	}{
		{"a key that was deleted", func(t *testing.T, s *shelf) error { return s.kv.Delete(t.Context(), "k") }},
		{"a key that was purged", func(t *testing.T, s *shelf) error { return s.kv.Purge(t.Context(), "k") }},
		{"a key that has expired", func(t *testing.T, s *shelf) error { time.Sleep(2 * time.Minute); return nil }},
		{"a key that has expired with its marker", func(t *testing.T, s *shelf) error { time.Sleep(3 * time.Hour); return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *shelf) {
				err := s.Update(t.Context(), "short", "k", func([]byte) (cas.Change, error) {
					return cas.Change{Value: []byte("old"), TTL: time.Minute}, nil
				})
				if err != nil {
					t.Fatal(err)
				}
				s.is(t, "k", "old")
				if err := tt.end(t, s); err != nil {
					t.Fatal(err)
				}
				s.is(t, "k", "")
				s.mustAdd(t, "k", "new")
				time.Sleep(24 * time.Hour)
				s.is(t, "k", "new")
			})
		})
	}
}

func TestAnUpdateWaitsForTheServer(t *testing.T) {
	bubble(t, func(t *testing.T, s *shelf) {
		s.mustAdd(t, "k", "a")
		s.Down()
		var done sync.WaitGroup
		began := time.Now()
		done.Go(func() { s.mustAdd(t, "k", "b") })
		time.Sleep(time.Minute)
		s.Restart(t)
		done.Wait()
		s.is(t, "k", "ab")
		if took := time.Since(began); took < time.Minute || took > time.Minute+20*time.Second {
			t.Errorf("it took %v with the server away for a minute", took)
		}
	})
}

func TestAnUpdateEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, s *shelf) {
		s.Down()
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		began := time.Now()
		err := s.Update(ctx, "add", "k", add("a"))
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took < 7*time.Second || took > 8*time.Second {
			t.Errorf("got %v after %v, want %v after 7s", err, took, context.DeadlineExceeded)
		}
		s.Restart(t)
		s.is(t, "k", "")
	})
}

func TestAnUpdateWhoseAnswerIsLostFindsItsOwnWork(t *testing.T) {
	bubble(t, func(t *testing.T, s *shelf) {
		var deaf atomic.Bool
		js, err := jetstream.New(s.DialDeaf(t, &deaf))
		if err != nil {
			t.Fatal(err)
		}
		b, err := cas.Open(t.Context(), js, "shelf")
		if err != nil {
			t.Fatal(err)
		}
		s.mustAdd(t, "k", "a")
		stores := 0
		ctx := call.With(t.Context(), func(point string) {
			if strings.HasPrefix(point, "mine.store ") {
				deaf.Store(stores == 0)
				stores++
			}
		})
		var seen []string
		err = b.Update(ctx, "mine", "k", func(value []byte) (cas.Change, error) {
			if seen = append(seen, string(value)); strings.HasSuffix(string(value), "mine") {
				return cas.Change{}, nil
			}
			return add("mine")(value)
		})
		if err != nil || strings.Join(seen, ",") != "a,amine" {
			t.Errorf("apply was given %q, %v; want a, then its own work", seen, err)
		}
		s.is(t, "k", "amine")
	})
}
