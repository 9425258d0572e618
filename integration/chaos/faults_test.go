//go:build linux

package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What a seed draws stays what it is, so that a run that was reported can be
// repeated. Whoever changes what is drawn changes this, and knows that older
// seeds mean something else.
func TestASeedDrawsTheSameFaultsForEver(t *testing.T) {
	t.Parallel()
	var got []string
	for _, f := range draw(plan{Seed: 7, For: time.Minute}) {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%v %v for %v", f.At, strings.Join(strings.Fields(f.String()), " "), f.For)))
	}
	want := []string{
		"2.5s step down stream KV_mulligan_kinds for 0s",
		"4.1s kill operator for 7.6s",
		"10.4s freeze downstream for 2.1s",
		"10.9s cut nats3 nats1 for 5.9s",
		"12.9s isolate worker1 all servers for 11.6s",
		"15.2s kill publisher2 for 1s",
		"17.5s reset links nats1 for 0s",
		"18.5s isolate worker3 all servers for 35.4s",
		"23.9s reset links publisher3 for 0s",
		"26.4s step down consumer 3 MULLIGAN_RETRIES for 0s",
		"38.3s cut other way scheduler2 its server for 10.4s",
		"48.7s freeze api for 7.4s",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("seed 7 draws\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDrawnFaultsAreWithinTheRunAndDoNotUndoEachOther(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		p := plan{Seed: seed, For: time.Minute}
		all := draw(p)
		if len(all) < 8 || len(all) > 14 {
			t.Errorf("seed %d draws %d faults, want 8 to 14", seed, len(all))
		}
		for i, f := range all {
			if f.At < 2*time.Second || f.At+f.For > p.For {
				t.Errorf("seed %d: %v at %v for %v is not within the run", seed, f, f.At, f.For)
			}
			for _, g := range all[:i] {
				if f.clashes(g) {
					t.Errorf("seed %d: %v at %v clashes with %v at %v", seed, f, f.At, g, g.At)
				}
			}
		}
	}
}

func TestEveryKindOfFaultIsDrawnAndNamedOnce(t *testing.T) {
	t.Parallel()
	drawn := map[string]bool{}
	for seed := range uint64(200) {
		for _, f := range draw(plan{Seed: seed, For: time.Minute}) {
			drawn[f.What] = true
		}
	}
	var names []string
	for _, d := range drafts() {
		names = append(names, d.what)
		if asked := d.what == diskFull || d.what == resetConsumer; drawn[d.what] == asked {
			t.Errorf("%q was drawn: %v; only what has to be asked for is not", d.what, drawn[d.what])
		}
	}
	if all := draw(plan{Seed: 1, For: time.Minute, Only: []string{diskFull}}); len(all) == 0 {
		t.Errorf("%q was never drawn, though asked for", diskFull)
	}
	slices.Sort(names)
	if once := slices.Compact(slices.Clone(names)); len(once) != len(names) {
		t.Errorf("kinds of faults %q: a name comes twice", names)
	}
}

func TestOnlyTheKindsThatWereAskedForAreDrawn(t *testing.T) {
	t.Parallel()
	p := plan{Seed: 1, For: time.Minute, Only: []string{"kill", "disk full"}}
	for _, f := range draw(p) {
		if !slices.Contains(p.Only, f.What) {
			t.Errorf("with only %q, %v was drawn", p.Only, f)
		}
	}
	p.Only = append(p.Only, "earthquake")
	if err := p.check(); err == nil || !strings.Contains(err.Error(), `"earthquake"`) {
		t.Errorf("a kind that there is none of: got %v, want an error that names it", err)
	}
}

func TestClocksAreWrongByLittleOrByHalfAMinute(t *testing.T) {
	t.Parallel()
	far := 0
	for seed := range uint64(200) {
		for name, wrong := range skews(seed) {
			switch wrong.Abs() {
			case 30 * time.Second:
				far++
				continue
			}
			if wrong.Abs() > 2*time.Second {
				t.Errorf("seed %d: the clock of %s is wrong by %v", seed, name, wrong)
			}
		}
		if !reflect.DeepEqual(skews(seed), skews(seed)) {
			t.Errorf("seed %d draws other clocks the second time", seed)
		}
	}
	if far < 100 || far > 400 {
		t.Errorf("%d of 1000 clocks are wrong by half a minute, want about 250", far)
	}
}

// The output of ss is what says when a link that was cut is a link again.
func TestAConnectionThatHasSentAgainIsToldFromOneThatHasNot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		out  string
		want bool
	}{
		{"", false},
		{"0 0 10.77.0.13:40000 10.77.0.10:4222 timer:(keepalive,14sec,0)\n", false},
		{"0 80 10.77.0.13:40000 10.77.0.10:4222 timer:(on,204ms,0)\n", false},
		{"0 80 10.77.0.13:40000 10.77.0.10:4222 timer:(on,204ms,0)\n0 80 10.77.0.13:40001 10.77.0.10:4222 timer:(on,1.2sec,3)\n", true},
	} {
		if got := sentAgain(c.out); got != c.want {
			t.Errorf("of %q got %v, want %v", c.out, got, c.want)
		}
	}
}

func TestALogTellsOfMistakesOfTheProgram(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		`{"level":"error","panic":"nil map","message":"handler panicked"}`: true,
		"panic: runtime error: index out of range [3]":                     true,
		"WARNING: DATA RACE":                        true,
		"fatal error: concurrent map writes":        true,
		`{"level":"warn","message":"NATS is away"}`: false,
	} {
		if got := mistake(line); got != want {
			t.Errorf("of %q got %v, want %v", line, got, want)
		}
	}
}

func TestEveryTenthSeedIsBuiltWithTheRaceDetector(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		s := series{seeds: 1, plan: plan{Seed: seed}}
		if got, want := s.raced(), seed%10 == 3; got != want {
			t.Errorf("seed %d is built so: %v, want %v", seed, got, want)
		}
	}
	if s := (series{seeds: 2, plan: plan{Seed: 2}}); !s.raced() {
		t.Error("seeds 2 and 3 are built without it, want with it for 3")
	}
}

func TestAClusterIsWholeOnceEachReplicaHasCaughtUp(t *testing.T) {
	t.Parallel()
	seen := caughtUp{}
	replica := func(current, offline bool) *jetstream.ClusterInfo {
		return &jetstream.ClusterInfo{Leader: "nats1", Replicas: []*jetstream.PeerInfo{{Name: "nats2", Current: current, Offline: offline}}}
	}
	for _, c := range []struct {
		name  string
		info  *jetstream.ClusterInfo
		whole bool
	}{
		{"nobody leads", &jetstream.ClusterInfo{}, false},
		{"a replica is behind", replica(false, false), false},
		{"it has caught up", replica(true, false), true},
		{"it is behind again, as jobs come", replica(false, false), true},
		{"it is offline", replica(true, true), false},
	} {
		if err := seen.look("MULLIGAN_JOBS", c.info); (err == nil) != c.whole {
			t.Errorf("%s: got %v, want whole: %v", c.name, err, c.whole)
		}
	}
}
