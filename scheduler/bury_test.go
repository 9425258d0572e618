package scheduler_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/metrics"
	"github.com/mulligan-queue/mulligan/scheduler"
)

var spentMove = mulligan.Move{Verb: mulligan.Spend, Reason: mulligan.AttemptsExhausted, ErrorType: "http_503", Error: "busy"}

// letters is how many letters were written, as the metrics say.
func letters(t *testing.T, reg *prometheus.Registry) (n int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "mulligan_dead_letters_total" {
			for _, m := range f.GetMetric() {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

func TestASpentJobIsBuriedWithAllThatIsKnownOfIt(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		reg := prometheus.NewRegistry()
		f.Metrics = metrics.New(reg)
		e := job("order 7", []byte{0, 255, '\r', '\n'})
		past := history(4)
		f.record(t, e, mulligan.Record{State: mulligan.Spent, Attempts: 4, History: past, Reason: mulligan.AttemptsExhausted})
		events, err := f.Env.Conn.SubscribeSync(f.Env.Topology.EventsRoot() + ".>")
		if err != nil {
			t.Fatal(err)
		}
		f.spend(t, e, spentMove)
		run(t, t.Context(), f.Scheduler, 2*time.Second)

		l := f.mustLetter(t, "order 7")
		asPublished(t, l.Envelope, e)
		if l.Reason != mulligan.AttemptsExhausted || l.ErrorType != "http_503" || l.Error != "busy" || l.Attempts != 4 || !reflect.DeepEqual(l.History, past) {
			t.Errorf("its letter is %+v", l)
		}
		if age := time.Since(l.BuriedAt); age < 0 || age > 10*time.Second || !l.Published.Equal(e.Published) || !l.Deadline.Equal(e.Deadline) {
			t.Errorf("its letter says published %v, to run before %v and buried %v", l.Published, l.Deadline, l.BuriedAt)
		}
		if r := f.found(t, e); r.State != mulligan.Dead || r.Reason != mulligan.AttemptsExhausted || r.Attempts != 4 {
			t.Errorf("its record is %+v, want it dead", r)
		}
		if c := f.Account(t); c.Held() != 0 || c.Dead != 1 {
			t.Errorf("%+v, want one letter and nothing else", c)
		}
		if m, err := events.NextMsg(time.Second); err != nil || !strings.Contains(string(m.Data), `"event":"dead"`) {
			t.Errorf("observers were told %+v, %v", m, err)
		}
		if n := letters(t, reg); n != 1 {
			t.Errorf("%d letters were counted, want 1", n)
		}
	})
}

func TestTheRecordDecidesWhatABurialDoes(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		for i, tt := range []struct {
			name   string
			record mulligan.Record // its zero value is none
			letter bool
			state  mulligan.State
		}{
			{"a spent key becomes dead", mulligan.Record{State: mulligan.Spent}, true, mulligan.Dead},
			{"a key that is dead already stays dead", mulligan.Record{State: mulligan.Dead}, true, mulligan.Dead},
			{"a key that is done meanwhile gets no letter", mulligan.Record{State: mulligan.Done}, false, mulligan.Done},
			{"a key without a record gets a letter and no record", mulligan.Record{}, true, ""},
			{"a key that was reopened meanwhile stays open", mulligan.Record{State: mulligan.Live}, true, mulligan.Live},
			{"a key that another payload has spent is not this job's to bury", mulligan.Record{State: mulligan.Spent, Payload: "other"}, true, mulligan.Spent},
		} {
			e := job(fmt.Sprint("job-", i), nil)
			if tt.record.State != "" {
				f.record(t, e, tt.record)
			}
			f.spend(t, e, spentMove)
			run(t, t.Context(), f.Scheduler, 2*time.Second)
			_, err := f.Letter(t.Context(), kind, e.ID)
			if got := f.found(t, e).State; (err == nil) != tt.letter || got != tt.state {
				t.Errorf("%s: its letter %v and its record %q; want a letter = %v and %q", tt.name, err, got, tt.letter, tt.state)
			}
			if c := f.Account(t); c.Held() != 0 {
				t.Errorf("%s: %+v is left", tt.name, c)
			}
		}
	})
}

func TestAJobThatIsDoneBehindItsLetterLosesTheLetter(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		e := job("late", []byte("x"))
		f.record(t, e, mulligan.Record{State: mulligan.Spent, Attempts: 4})
		f.spend(t, e, spentMove)
		wrote := 0
		ctx := call.With(t.Context(), func(point string) {
			switch point {
			case "bury.letter after":
				wrote++
			case "bury.mark.store before":
				f.record(t, e, mulligan.Record{State: mulligan.Done, Attempts: 5, Result: mulligan.NewResult([]byte("sent"), time.Now())})
			}
		})
		run(t, ctx, f.Scheduler, 2*time.Second)
		f.noLetter(t, "late")
		if r := f.found(t, e); wrote != 1 || r.State != mulligan.Done || string(r.Result.Data) != "sent" {
			t.Errorf("%d letters were written and the record is %+v; want one, taken back, and the job done", wrote, r)
		}
		if c := f.Account(t); c.Held() != 0 {
			t.Errorf("%+v is left", c)
		}
	})
}

func TestABurialThatIsCutOffIsFinishedByTheNext(t *testing.T) {
	for _, point := range []string{"bury.look.load before", "bury.look.load after", "bury.letter before", "bury.letter after", "bury.mark.store before",
		"bury.mark.store after", "bury.ack before", "bury.ack after"} {
		t.Run("a scheduler that ends at "+point, func(t *testing.T) {
			bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
				reg := prometheus.NewRegistry()
				f.Metrics = metrics.New(reg)
				e := job("x", []byte("x"))
				f.record(t, e, mulligan.Record{State: mulligan.Spent, Attempts: 4})
				f.spend(t, e, spentMove)
				ended := false
				ctx := call.With(t.Context(), func(p string) {
					if p == point && !ended {
						ended = true
						runtime.Goexit()
					}
				})
				run(t, ctx, f.Scheduler, 2*mulligan.AckWait)
				l := f.mustLetter(t, "x")
				if n := letters(t, reg); !ended || n != 1 || f.found(t, e).State != mulligan.Dead || l.Attempts != 4 {
					t.Errorf("%d letters were written, the record is %s, the letter %+v; want one of a dead job", n, f.found(t, e).State, l)
				}
				if c := f.Account(t); c.Held() != 0 || c.Dead != 1 {
					t.Errorf("%+v is left", c)
				}
			})
		})
	}
}

// A server of a cluster that leads no more answers for a while from what it knew.
func TestARecordThatIsReadFromBeforeItWasSpentIsReadAgain(t *testing.T) {
	for _, old := range []mulligan.State{"", mulligan.Live, mulligan.Parked, mulligan.Dead} {
		t.Run("when it was "+cmp.Or(string(old), "not there"), func(t *testing.T) {
			bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
				e := job("x", []byte("x"))
				f.spend(t, e, spentMove)
				reads := 0
				ctx := call.With(t.Context(), func(point string) {
					switch point {
					case "bury.look.load before":
						if reads++; reads == 1 && old != "" {
							f.record(t, e, mulligan.Record{State: old, Attempts: 1})
						}
					case "bury.look.load after":
						if reads == 1 {
							f.record(t, e, mulligan.Record{State: mulligan.Spent, Attempts: 4, History: history(4)})
						}
					}
				})
				run(t, ctx, f.Scheduler, 2*time.Second)
				if l, r := f.mustLetter(t, "x"), f.found(t, e); reads != 2 || l.Attempts != 4 || len(l.History) != 4 || r.State != mulligan.Dead || r.Attempts != 4 {
					t.Errorf("after %d reads the letter is %+v and the record %+v; want two, and all four attempts in a dead job's", reads, l, r)
				}
				if c := f.Account(t); c.Held() != 0 || c.Dead != 1 {
					t.Errorf("%+v is left", c)
				}
			})
		})
	}
}

func TestAKeyConflictHasALetterBesideTheKeys(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		own, other := job("x", []byte("own")), job("x", []byte("other"))
		f.record(t, own, mulligan.Record{State: mulligan.Spent, Attempts: 4, History: history(4)})
		f.spend(t, own, spentMove)
		run(t, t.Context(), f.Scheduler, 2*time.Second)
		f.spend(t, other, mulligan.Move{Reason: mulligan.KeyConflict, Error: "the key belongs to another payload"})
		run(t, t.Context(), f.Scheduler, 2*time.Second)

		all, err := f.Letters(t.Context(), scheduler.Query{})
		if err != nil || len(all) != 2 {
			t.Fatalf("got %d letters, %v; want 2", len(all), err)
		}
		asPublished(t, all[0].Envelope, other)
		asPublished(t, all[1].Envelope, own)
		if c := all[0]; c.Reason != mulligan.KeyConflict || c.Attempts != 0 || c.History != nil {
			t.Errorf("the conflict's letter is %+v; want nothing of the other payload's attempts", c)
		}
		if l := f.mustLetter(t, "x"); l.Reason != mulligan.AttemptsExhausted {
			t.Errorf("the key's own letter is %+v", l)
		}
		if r := f.found(t, own); r.State != mulligan.Dead || r.Payload != own.Fingerprint() {
			t.Errorf("the record is %+v, want it the key's own", r)
		}
		if _, err := f.Replay(t.Context(), kind, "x"); err != nil {
			t.Error(err)
		}
		if l := f.mustLetter(t, "x"); l.Reason != mulligan.KeyConflict {
			t.Errorf("with its own letter gone the key has %+v, want the conflict's", l)
		}
		if _, err := f.Replay(t.Context(), kind, "x"); !errors.Is(err, scheduler.ErrNotReplayable) {
			t.Errorf("replay of the conflict: got %v", err)
		}
	})
}

func TestWhatIsNotAJobIsBuriedWhole(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		body := bytes.Repeat([]byte{0, '\n', 255}, 500)
		long := strings.Repeat("x", 300)
		for _, token := range []string{"=!!", "a$b", long} {
			e, err := mulligan.OpenJob(kind, token, &nats.Msg{Header: nats.Header{"X-Team": {"a"}}, Data: body}, time.Now())
			if err == nil {
				t.Fatalf("token %q is a job's", token)
			}
			subject := mulligan.Subject(f.Env.Topology.SpentRoot(), kind, mulligan.SafeToken(token))
			f.put(t, e.SpentMessage(subject, mulligan.Move{Reason: mulligan.Malformed, Error: err.Error()}))
		}
		unknown := job("stranger", body)
		subject := mulligan.Subject(f.Env.Topology.SpentRoot(), kind, "stranger")
		f.put(t, unknown.SpentMessage(subject, mulligan.Move{Reason: "because"}))
		run(t, t.Context(), f.Scheduler, 2*time.Second)
		for _, id := range []string{"=!!", "a$b", long, "stranger"} {
			l := f.mustLetter(t, id)
			if l.Reason != mulligan.Malformed || l.Error == "" || !bytes.Equal(l.Payload, body) || l.ID != id || l.Header.Get("X-Team") != "a" {
				t.Errorf("the letter of %q is %s %q, %d bytes, %v", l.ID, l.Reason, l.Error, len(l.Payload), l.Header)
			}
			if _, err := f.Replay(t.Context(), kind, id); !errors.Is(err, scheduler.ErrNotReplayable) {
				t.Errorf("replay of %q: got %v", id, err)
			}
		}
		if c := f.Account(t); c.Held() != 0 || c.Dead != 4 || len(c.Records) != 0 {
			t.Errorf("%+v; want four letters and no record", c)
		}
	})
}

func TestSpentJobsWaitForRoomAmongTheLetters(t *testing.T) {
	bubble(t, mulligan.Topology{DeadMaxBytes: 20 << 10}, func(t *testing.T, f *floor) {
		const jobs = 5
		for i := range jobs {
			e := job(fmt.Sprint(i), make([]byte, 8<<10))
			f.record(t, e, mulligan.Record{State: mulligan.Spent})
			f.spend(t, e, spentMove)
		}
		for buried := 2; buried <= jobs; {
			run(t, t.Context(), f.Scheduler, 30*time.Second)
			c := f.Account(t)
			if c.Dead > 2 || c.Spent != jobs-buried || c.Records[mulligan.Dead] != buried || c.Records[mulligan.Spent] != c.Spent {
				t.Fatalf("with %d letters written: %+v; want the others to wait", buried, c)
			}
			if buried == jobs {
				break
			}
			all, err := f.Letters(t.Context(), scheduler.Query{Limit: 1})
			if err != nil || len(all) != 1 {
				t.Fatalf("got %d letters, %v", len(all), err)
			}
			if err := f.dead.DeleteMsg(t.Context(), all[0].Seq); err != nil {
				t.Fatal(err)
			}
			f.Ran(kind, all[0].ID) // its letter was taken away, it is not lost
			buried++
		}
	})
}

func TestTwoSchedulersBuryEachJobOnce(t *testing.T) {
	const jobs = 200
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		reg := prometheus.NewRegistry()
		m := metrics.New(reg)
		for i := range jobs {
			e := job(fmt.Sprint(i), []byte{byte(i)})
			f.record(t, e, mulligan.Record{State: mulligan.Spent, Attempts: 1 + i%4})
			f.spend(t, e, spentMove)
		}
		var mu sync.Mutex
		worked := map[int]bool{}
		var both sync.WaitGroup
		for i := range 2 {
			both.Go(func() {
				ctx := call.With(t.Context(), func(string) {
					mu.Lock()
					defer mu.Unlock()
					worked[i] = true
				})
				run(t, ctx, &scheduler.Scheduler{Conn: f.Dial(t), Metrics: m}, 10*time.Second)
			})
		}
		both.Wait()
		c := f.Account(t)
		if n := letters(t, reg); n != jobs || c.Dead != jobs || c.Held() != 0 || c.Records[mulligan.Dead] != jobs || len(worked) != 2 {
			t.Errorf("%d letters were written by %d schedulers: %+v; want %d by two", n, len(worked), c, jobs)
		}
	})
}

func TestASchedulerThatCannotBeginSaysWhy(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := new(scheduler.Scheduler).Run(ctx); err == nil || !strings.Contains(err.Error(), "set Conn") {
		t.Errorf("without a connection: got %v", err)
	}
}

func TestASchedulerOutlivesARestartOfTheServer(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		ctx, end := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() {
			if err := f.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		f.Down()
		time.Sleep(time.Minute)
		f.Restart(t)
		e := job("x", nil)
		f.record(t, e, mulligan.Record{State: mulligan.Spent})
		f.spend(t, e, spentMove)
		time.Sleep(20 * time.Second)
		end()
		done.Wait()
		if l := f.mustLetter(t, "x"); f.found(t, e).State != mulligan.Dead || l.Reason != mulligan.AttemptsExhausted {
			t.Errorf("after the restart the record is %+v, the letter %+v", f.found(t, e), l)
		}
	})
}
