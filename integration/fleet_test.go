package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// fleet is the program as it runs in earnest: several workers and a scheduler,
// each a process, a NATS server apart from them, and one provider that all
// workers call for one keyed kind. All budgets are those that the program has
// by default.
type fleet struct {
	*natstest.Env
	p         *provider
	pub       *mulligan.Publisher
	names     []string
	workers   []*proc // in the order of names
	scheduler *proc
	published map[string]time.Time // when, by ID
}

const fleetKind, fleetDownstream = "email.send", "mailer"

// newFleet starts a fleet whose workers call p.
func newFleet(t testing.TB, p *provider, workers int) *fleet {
	t.Helper()
	f := &fleet{Env: natstest.Server(t), p: p, names: workerNames(workers), published: map[string]time.Time{}}
	f.pub = &mulligan.Publisher{Conn: f.Conn, Kinds: []mulligan.Kind{{Name: fleetKind, Effect: mulligan.Keyed, Downstream: fleetDownstream}}}
	command(t, "provision", "--server", f.URL, "--config", fleetConfig(t, p, "nobody"))
	f.scheduler = start(t, "scheduler", "--server", f.URL, "--http", "127.0.0.1:0")
	for _, name := range f.names {
		f.workers = append(f.workers, start(t, "worker", "--server", f.URL, "--http", "127.0.0.1:0", "--config", fleetConfig(t, p, name)))
	}
	for i, w := range f.workers {
		eventually(t, 30*time.Second, f.names[i]+" runs", func() bool { return w.log.has("worker runs") })
	}
	return f
}

func fleetConfig(t testing.TB, p *provider, worker string) string {
	t.Helper()
	return file(t, worker+".yaml", fmt.Sprintf(`
kinds:
  %s:
    effect: keyed
    downstream: %s
    http: {url: "%s/do", concurrency: %d, headers: {X-Worker: %q}}
`, fleetKind, fleetDownstream, p.url, slots, worker))
}

// stream is jobs that arrive at a steady rate: the nth is job(n).
type stream struct {
	perSecond int
	job       func(n int) mulligan.Job
}

// arrive publishes jobs in real time until it is over: at any time as many of
// each stream as its rate asks for, so that a slow moment is made up for.
func (f *fleet) arrive(t testing.TB, over time.Time, streams ...stream) {
	t.Helper()
	began, did := time.Now(), make([]int, len(streams))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for now, end := began, false; !end; now = <-tick.C {
		if end = !now.Before(over); end {
			now = over
		}
		var jobs []mulligan.Job
		for i, s := range streams {
			for ; did[i] < int(now.Sub(began).Seconds()*float64(s.perSecond)); did[i]++ {
				j := s.job(did[i])
				j.Kind, j.Payload = fleetKind, []byte(payload(j.ID))
				jobs = append(jobs, j)
			}
		}
		f.publish(t, jobs)
	}
}

func (f *fleet) publish(t testing.TB, jobs []mulligan.Job) {
	t.Helper()
	at := time.Now()
	for i, o := range f.pub.PublishMany(t.Context(), jobs) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		f.published[jobs[i].ID] = at
		f.Accept(fleetKind, jobs[i].ID)
	}
}

// counts are the sums of what the workers count, by metric and labels.
func (f *fleet) counts(t testing.TB) map[string]counted {
	t.Helper()
	all := map[string]counted{}
	for _, w := range f.workers {
		for name, of := range metricsOf(t, w) {
			if all[name] == nil {
				all[name] = counted{}
			}
			for labels, n := range of {
				all[name][labels] += n
			}
		}
	}
	return all
}

// sum adds up the samples whose labels contain all of these.
func (c counted) sum(labels ...string) (n int) {
	for l, m := range c {
		if !slices.ContainsFunc(labels, func(part string) bool { return !strings.Contains(l, part) }) {
			n += m
		}
	}
	return n
}
