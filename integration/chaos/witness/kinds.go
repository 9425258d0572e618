package witness

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// kind is what the jobs of the run do, and what their policy promises.
type kind struct {
	name       string
	effect     mulligan.Effect
	downstream string
	policy     string // as the config file says it
	attempts   int
	total      time.Duration
	first, max time.Duration // of the delays
	version    int           // of the workers that serve it
}

// callTimeout bounds one call of every kind.
const callTimeout = 2 * time.Second

// What the run's downstreams let retries do: the program's defaults, stated here
// again so that the checker does not ask the program for them.
const (
	retryRatio = 0.1
	retryFloor = 1.0
	retryCap   = 10.0
)

// A Rate is how many retries a user may have over all kinds; String is a line of a
// worker's config file.
type Rate struct {
	PerSecond float64 `json:"per_second"`
	Burst     int     `json:"burst"`
}

func (r Rate) String() string {
	return fmt.Sprintf("user_rate: {per_second: %v, burst: %d}\n", r.PerSecond, r.Burst)
}

// UserRate is that of a run which is not about load: less than the program's, so
// that users reach it.
func UserRate() Rate { return Rate{PerSecond: 0.5, Burst: 5} }

// kinds are those of the run. Three downstreams, each with kinds of its own, are
// one process.
func kinds() []kind {
	const plain, durable, brisk = "default", "durable", "{attempts: 6, total: 4s, first_delay: 50ms, timeout: 2s}"
	return []kind{
		{"mail.send", mulligan.Keyed, "mail", plain, 4, 10 * time.Second, 100 * time.Millisecond, 10 * time.Second, 1},
		{"mail.report", mulligan.Once, "mail", durable, 8, 2 * time.Minute, 100 * time.Millisecond, 30 * time.Second, 1},
		{"pay.charge", mulligan.Keyed, "pay", durable, 8, 2 * time.Minute, 100 * time.Millisecond, 30 * time.Second, 1},
		{"pay.hook", mulligan.Once, "pay", plain, 4, 10 * time.Second, 100 * time.Millisecond, 10 * time.Second, 1},
		{"model.ask", mulligan.Pure, "model", plain, 4, 10 * time.Second, 100 * time.Millisecond, 10 * time.Second, 1},
		{"model.rank", mulligan.Pure, "model", brisk, 6, 4 * time.Second, 50 * time.Millisecond, 10 * time.Second, 1},
		{"pay.refund", mulligan.Keyed, "pay", plain, 4, 10 * time.Second, 100 * time.Millisecond, 10 * time.Second, 2},
	}
}

func kindOf(name string) (kind, bool) {
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if i < 0 {
		return kind{}, false
	}
	return all[i], true
}

// WorkerConfig is the config file of a worker with this name. Version 2 serves
// one kind more. The downstream is told who calls.
func WorkerConfig(seed uint64, worker, downstreamURL string, version int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# worker %s of seed %d, version %d\nkinds:\n", worker, seed, version)
	for _, k := range kinds() {
		if k.version > version {
			continue
		}
		fmt.Fprintf(&b, "  %s:\n    effect: %s\n    downstream: %s\n    policy: %s\n", k.name, k.effect, k.downstream, k.policy)
		fmt.Fprintf(&b, "    http: {url: %q, timeout: %v, headers: {%s: %s}}\n", strings.TrimSuffix(downstreamURL, "/")+"/"+k.name, callTimeout, headerWorker, worker)
	}
	fmt.Fprintf(&b, "  %s: {effect: pure, downstream: model, http: {url: %q}}\n", Odd, strings.TrimSuffix(downstreamURL, "/")+"/"+Odd)
	return b.String()
}

// Fingerprint is what evidence has of a payload.
func Fingerprint(payload []byte) string { return fingerprint(payload) }

// Odd is a kind of which the rig publishes what is no job. The checker knows
// nothing of it but that it must not be called.
const Odd = "model.odd"

// headerWorker tells the downstream which worker calls.
const headerWorker = "X-Worker"

// keyOf is the idempotency key that the downstream must see, by the README.
func keyOf(kind, id string) string { return kind + "/" + mulligan.Token(id) }
