package consumer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

var pure = mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}

// stands is how the downstream stands in the only worker.
func (f *floor) stands(t *testing.T) consumer.DownstreamState {
	t.Helper()
	answer, err := f.Conn.Request(consumer.StateSubject, nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var s consumer.State
	if err := json.Unmarshal(answer.Data, &s); err != nil || len(s.Downstreams) != 1 {
		t.Fatalf("%s: %v", answer.Data, err)
	}
	return s.Downstreams[0]
}

// pulled is how many messages of a queue were delivered and not acknowledged.
func (f *floor) pulled(t *testing.T, q mulligan.Queue) int {
	t.Helper()
	c, err := f.JS.Consumer(t.Context(), q.Stream, q.Durable)
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.NumAckPending
}

func TestWhileADownstreamFailsItsJobsWaitAndUseNoAttempt(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		var up atomic.Bool
		stop := f.work(t, &consumer.Worker{Concurrency: 4}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note("calls")
			if !up.Load() {
				return nil, errFlaky
			}
			return nil, nil
		})
		const jobs = 200
		for i := range jobs {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("job-", i), User: fmt.Sprint("user-", i)})
		}
		time.Sleep(20 * time.Minute)
		// What trips the breaker, those in flight then, and probes: a second apart at
		// first, soon half a minute.
		if n := len(f.log.of("calls")); n > 20+4+2*20+30 {
			t.Errorf("%d calls within twenty minutes in which all fail", n)
		}
		if s := f.stands(t); s.Held != "open" || s.InFlight != 0 {
			t.Errorf("the downstream stands at %+v, want it held", s)
		}
		up.Store(true)
		f.settled(t, ids("job-", jobs)...)
		stop()
		attempts := map[int]int{}
		for i := range jobs {
			st := f.state(t, fmt.Sprint("job-", i))
			if st.State != mulligan.StatusDone {
				t.Errorf("job %d is %s, %s", i, st.State, st.Record.Reason)
			}
			attempts[st.Record.Attempts]++
		}
		t.Logf("jobs by attempts: %v", attempts)
	})
}

func TestARefusedCredentialUsesNoAttemptAndGoesOnByItself(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		var renewed atomic.Bool
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note("calls")
			if !renewed.Load() {
				return nil, mulligan.RefusedCredential(errFlaky)
			}
			return nil, nil
		})
		const jobs = 100
		for i := range jobs {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("job-", i)})
		}
		time.Sleep(10 * time.Minute)
		// Those in flight at the first refusal, and probes: a second apart at first,
		// soon half a minute.
		if n := len(f.log.of("calls")); n > 16+60 {
			t.Errorf("%d calls with a credential that is refused", n)
		}
		if s := f.stands(t); !s.CredentialRefused {
			t.Errorf("the downstream stands at %+v, want that it refuses the credential", s)
		}
		renewed.Store(true)
		f.settled(t, ids("job-", jobs)...)
		for i := range jobs {
			if st := f.state(t, fmt.Sprint("job-", i)); st.State != mulligan.StatusDone || st.Record.Attempts != 1 {
				t.Errorf("job %d is %s after %d attempts, want it done at the first that was accepted", i, st.State, st.Record.Attempts)
			}
		}
		if s := f.stands(t); s.CredentialRefused || s.Held != "" {
			t.Errorf("the downstream stands at %+v, want it free", s)
		}
		stop()
	})
}

func TestRetriesThatAreDueStayInTheirStreamWhileNoSlotIsFree(t *testing.T) {
	kind := pure
	kind.Policy = mulligan.Policy{Total: 6 * time.Hour}
	bubble(t, kind, func(t *testing.T, f *floor) {
		end := make(chan struct{})
		stop := f.work(t, &consumer.Worker{Concurrency: 2}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			if j.User == "slow" {
				<-end
			}
			return nil, nil
		})
		for i := range 30 {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("later-", i), NotBefore: time.Now().Add(time.Minute)})
		}
		time.Sleep(20 * time.Second)
		f.publish(t, mulligan.Job{ID: "slow-0", User: "slow"}, mulligan.Job{ID: "slow-1", User: "slow"})
		time.Sleep(20 * time.Minute)
		if s := f.stands(t); s.InHand > 2+10 || s.Tokens < 0 {
			t.Errorf("%+v: %d messages in hand, with two slots that are busy and ten retries saved", s, s.InHand)
		}
		time.AfterFunc(time.Second, func() { close(end) })
		asked := time.Now()
		stop()
		if took := time.Since(asked); took > 3*time.Second {
			t.Errorf("the worker ended after %v, its last jobs after one second", took)
		}
		for i := range 30 {
			f.Ran(kind.Name, fmt.Sprint("later-", i)) // some have, the others are held
		}
		f.Ran(kind.Name, "slow-0")
		f.Ran(kind.Name, "slow-1")
	})
}

func TestAHandlerThatDoesNotHeedItsContextIsNotTheProbeForEver(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Timeout: 5 * time.Second, Total: time.Hour}
	bubble(t, kind, func(t *testing.T, f *floor) {
		var up, hangs atomic.Bool
		end := make(chan struct{})
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if !up.Load() {
				return nil, errFlaky
			}
			if hangs.CompareAndSwap(false, true) {
				f.log.note("hung " + j.ID)
				<-end
			}
			return nil, nil
		})
		for i := range 30 {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("job-", i)})
		}
		time.Sleep(300 * time.Millisecond)
		up.Store(true)
		time.Sleep(20 * time.Minute)
		done := 0
		for i := range 30 {
			if f.state(t, fmt.Sprint("job-", i)).State == mulligan.StatusDone {
				done++
			}
		}
		if done != 29 {
			t.Errorf("%d jobs are done, want all but the one that hangs", done)
		}
		close(end)
		f.settled(t, ids("job-", 30)...)
		stop()
	})
}

func TestAWorkerWithABadCredentialDoesNotKeepJobsFromAnother(t *testing.T) {
	bubble(t, pure, func(t *testing.T, f *floor) {
		var stale atomic.Bool
		work := func(name string, refused func() bool) (stop func()) {
			return f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
				time.Sleep(10 * time.Millisecond)
				if refused() {
					return nil, mulligan.RefusedCredential(errFlaky)
				}
				f.log.note(name)
				f.Ran(pure.Name, j.ID)
				return nil, nil
			})
		}
		stopA := work("a", stale.Load)
		for i := range 200 { // the worker learns that its jobs are short, and pulls many
			f.publish(t, mulligan.Job{ID: fmt.Sprint("first-", i)})
		}
		time.Sleep(20 * time.Second)
		stopB := work("b", func() bool { return false })
		time.Sleep(5 * time.Second)
		stale.Store(true)
		const jobs = 2000
		for i := range jobs {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("job-", i)})
		}
		time.Sleep(3 * time.Minute)
		if n := len(f.log.of("b")); n < jobs-2 { // one may be the probe of the other just now
			t.Errorf("the other worker ran %d of %d jobs", n, jobs)
		}
		stopA()
		stopB()
	})
}

func TestARetryIsPaidOnce(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Attempts: 8, Total: time.Hour}
	bubble(t, kind, func(t *testing.T, f *floor) {
		w := &consumer.Worker{Downstreams: map[string]consumer.Downstream{mulligan.DefaultDownstream: {Floor: 0.001}}}
		var mu sync.Mutex
		var tokens []float64
		stop := f.work(t, w, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			s := f.stands(t)
			mu.Lock()
			defer mu.Unlock()
			switch tokens = append(tokens, s.Tokens); {
			case j.Attempt == 1:
				return nil, mulligan.After(5*time.Second, errFlaky) // parked
			case j.Attempt <= 4:
				return nil, errFlaky // a nak, from among the retries that are due
			}
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "a"})
		f.settled(t, "a")
		stop()
		// One is with the pull that waits for retries which are due. The first retry
		// is of a throttled attempt.
		for i, want := range []float64{9, 8.65, 7.65, 6.65, 5.65} {
			if got := tokens[i]; math.Abs(got-want) > 0.1 && math.Abs(got-want-1) > 0.1 {
				t.Errorf("at attempt %d there are %v tokens, want %v, or one more between two pulls", i+1, got, want)
			}
		}
	})
}

func TestASnoozeCostsNoRetryAlsoAfterAFailure(t *testing.T) {
	bubble(t, pure, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID) == 1 {
				return nil, errFlaky
			}
			f.log.note("snoozes")
			return nil, mulligan.Snooze(time.Second)
		})
		const jobs = 10
		for i := range jobs {
			f.publish(t, mulligan.Job{ID: fmt.Sprint(i)})
		}
		time.Sleep(2 * time.Minute)
		// Each runs again within a second and a half, for the schedule's lateness.
		if n := len(f.log.of("snoozes")); n < jobs*120/2 {
			t.Errorf("%d jobs ran %d times within two minutes, which is the pace of retries", jobs, n)
		}
		stop()
	})
}

func TestNoRetryIsPulledWhileTheDownstreamAskedToWait(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Total: time.Hour, FirstDelay: 5 * time.Second}
	bubble(t, kind, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			switch {
			case j.ID == "hint" && j.Attempt == 1:
				return nil, mulligan.After(50*time.Second, errFlaky)
			case j.Attempt == 1:
				return nil, errFlaky
			}
			f.log.note("retried")
			return nil, nil
		})
		for i := range 10 {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("job-", i)})
		}
		time.Sleep(time.Second)
		f.publish(t, mulligan.Job{ID: "hint"})
		time.Sleep(45 * time.Second)
		if n, pulled := len(f.log.of("retried")), f.pulled(t, mulligan.Topology{}.DueQueue(mulligan.DefaultDownstream)); n != 0 || pulled > 1 {
			t.Errorf("%d retries ran and %d were pulled while the gate is closed", n, pulled)
		}
		if s := f.stands(t); s.Held != string(budget.GateClosed) {
			t.Errorf("the downstream stands at %+v, want its gate closed", s)
		}
		f.settled(t, append(ids("job-", 10), "hint")...)
		stop()
	})
}
