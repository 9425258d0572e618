package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// chance is what the seed gives for a name: the same, whoever asks and when.
func chance(seed uint64, name string, n int) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d/%s/%d", seed, name, n)))
}

// planned is a job as the seed has it, and what its publisher does with it
// besides.
type planned struct {
	Published
	again, twice, conflict bool
	againAfter             time.Duration
}

// draw is job n of a publisher. late: the run has gone on for long enough for
// workers of version 2.
func draw(cfg PublisherConfig, n int, late bool) planned {
	seed, publisher := cfg.Seed, cfg.Name
	r := rand.New(chance(seed, publisher, n))
	p := planned{Published: Published{N: n, ID: fmt.Sprintf("%s-%d", publisher, n)}}
	all := kinds()
	p.Kind = all[r.IntN(len(all)-1)].name // the last is of version 2
	if r.IntN(12) == 0 && late {
		p.Kind = all[len(all)-1].name
	}
	if n == 150 && seed%4 == 1 && !cfg.Calm && styleOf(publisher) == one {
		p.ID, p.Kind, p.Payload = deadlyJob, "pay.charge", fingerprint(payload(seed, &Published{ID: deadlyJob, Kind: "pay.charge"}))
		return p
	}
	if r.IntN(20) == 0 {
		p.ID = fmt.Sprintf("%s/№ %d", publisher, n) // as no subject takes it
	}
	if r.IntN(2) == 0 {
		p.User = fmt.Sprintf("user-%d", r.IntN(20))
	}
	// Who is told to wait is mostly one user of the downstream: where several are,
	// all calls are held. It has more to retry than places, and does not wait for
	// them for ever.
	if behave(seed, cfg.Calm, keyOf(p.Kind, p.ID), 1).Hint > 0 && (r.IntN(12) > 0 || cfg.Calm) {
		k, _ := kindOf(p.Kind)
		p.User = k.downstream + "-limited"
		if !cfg.Calm {
			p.Within = 30 * time.Second
		}
	}
	if r.IntN(4) == 0 {
		p.Task = fmt.Sprintf("%s-task-%d", publisher, n/40)
	}
	p.Size = drawSize(r)
	if r.IntN(12) == 0 {
		p.Wait = time.Second + rand64(r, 3*time.Second)
	}
	if r.IntN(12) == 0 {
		p.Within = p.Wait + 2*time.Second + rand64(r, 6*time.Second)
	}
	k, _ := kindOf(p.Kind)
	p.again, p.twice = r.IntN(3) == 0, r.IntN(8) == 0
	p.againAfter = rand64(r, 8*time.Second)
	p.conflict = r.IntN(8) == 0 && k.effect != mulligan.Pure // a pure key protects nothing once it is done
	// One user has a third of what fails, and no time to wait for a place.
	if !cfg.Calm && r.IntN(3) == 0 && behave(seed, cfg.Calm, keyOf(p.Kind, p.ID), 1).Status == http.StatusInternalServerError {
		p.User, p.Wait, p.Within = "hasty", 0, 3*time.Second
	}
	p.Payload = fingerprint(payload(seed, &p.Published))
	return p
}

func rand64(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }

func drawSize(r *rand.Rand) int {
	switch n := r.IntN(100); {
	case n < 10:
		return 0
	case n < 99:
		return r.IntN(1 << (4 + r.IntN(11))) // more small ones than large ones, up to 16 KiB
	}
	return 190_000 + r.IntN(10_000)
}

// payload is what a job carries: bytes of which only the seed knows.
func payload(seed uint64, p *Published) []byte {
	b := make([]byte, p.Size)
	_, _ = chance(seed, p.Kind+"/"+p.ID, p.Variant).Read(b) // never fails
	return b
}

// other is p with another payload under the same key.
func other(seed uint64, p Published) Published {
	p.Variant, p.Size = 1, p.Size+1
	p.Payload = fingerprint(payload(seed, &p))
	return p
}

// fingerprint tells payloads apart, bit for bit.
func fingerprint(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// style is how a publisher publishes.
type style int

const (
	one      style = iota // the library, one job at a time
	many                  // the library, several at once
	stranger              // any NATS client
	eager                 // the library, with duplicates and conflicts
)

// styleOf goes by the number at the end of the publisher's name, so that of four
// in a row each is another.
func styleOf(name string) style {
	n := 0
	for _, c := range name[len(strings.TrimRight(name, "0123456789")):] {
		n = n*10 + int(c-'0')
	}
	return style(n % 4)
}
