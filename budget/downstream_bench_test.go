package budget

import (
	"testing"
	"time"
)

func benched(b *testing.B) (*Downstream, time.Time) {
	b.Helper()
	b.ReportAllocs()
	now := instant(0)
	d, err := NewDownstream(Limits{}, now)
	if err != nil {
		b.Fatal(err)
	}
	return d, now
}

func BenchmarkAFirstAttemptThatSucceeds(b *testing.B) {
	d, now := benched(b)
	for b.Loop() {
		now = now.Add(time.Millisecond)
		permit, wait := d.Start(now, nil)
		if wait.Why != "" {
			b.Fatal(wait)
		}
		permit.End(now, Outcome{Result: Succeeded})
	}
}

func BenchmarkAFirstAttemptThatSucceedsOnAllCores(b *testing.B) {
	d, now := benched(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			permit, _ := d.Start(now, nil)
			permit.End(now, Outcome{Result: Succeeded})
		}
	})
}

func BenchmarkAStartThatIsDenied(b *testing.B) {
	d, now := benched(b)
	for range tripCalls {
		permit, _ := d.Start(now, nil)
		permit.End(now, Outcome{Result: Failed})
	}
	for b.Loop() {
		if _, wait := d.Start(now, nil); wait.Why != BreakerOpen {
			b.Fatal(wait)
		}
	}
}

func BenchmarkATokenThatIsDenied(b *testing.B) {
	d, now := benched(b)
	for token, _ := d.Take(now, Failed); token != nil; token, _ = d.Take(now, Failed) {
	}
	for b.Loop() {
		if token, _ := d.Take(now, Failed); token != nil {
			b.Fatal("a token")
		}
	}
}

func BenchmarkARetryThatSucceeds(b *testing.B) {
	d, now := benched(b)
	for b.Loop() {
		token, _ := d.Take(now, Failed)
		permit, wait := d.Start(now, token)
		if wait.Why != "" {
			b.Fatal(wait)
		}
		permit.End(now, Outcome{Result: Succeeded})
	}
}
