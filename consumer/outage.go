package consumer

import (
	"sync"
	"time"
)

// sayEvery is how often a log line says that a bucket is still away.
const sayEvery = 10 * time.Second

// outage returns what to tell of a bucket's failed calls and, with nil, of its
// next answer. It shows and logs when jobs begin to wait for the bucket, that
// they still do, and when that is over.
func (w *Worker) outage(bucket string) func(err error) {
	var (
		mu          sync.Mutex
		since, said time.Time
	)
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		w.Metrics.BucketAway(bucket, err != nil)
		switch {
		case err == nil:
			w.Log.Warn().Stringer("away", now.Sub(since).Round(time.Millisecond)).Msgf("the bucket of %s answers again", bucket)
			since, said = time.Time{}, time.Time{}
			return
		case now.Sub(said) < sayEvery:
			return
		case since.IsZero():
			since = now
		}
		said = now
		w.Log.Error().Err(err).Stringer("away", now.Sub(since).Round(time.Millisecond)).Msgf("the bucket of %s brings no answer; jobs wait for it and nothing runs without", bucket)
	}
}
