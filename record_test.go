package mulligan_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func fullRecord() *mulligan.Record {
	r := &mulligan.Record{
		State: mulligan.Parked, Payload: mulligan.FingerprintOf([]byte("p")), Attempts: 2, Spent: 3 * time.Second, Starts: 1,
		Move:   &mulligan.Move{Address: "JOBS:7", Verb: mulligan.Park, Reason: mulligan.UserBudget, Due: stored(), ErrorType: "timeout", Error: "slow"},
		Reason: mulligan.Expired, Changed: []byte{0, 255}, Changes: []mulligan.Fingerprint{"a", "b"},
		Result: mulligan.NewResult([]byte("ok"), stored()),
	}
	r.Note(mulligan.Attempt{Number: 1, Run: "r1", At: stored(), Took: time.Second, ErrorType: "refused", Error: "no", Verb: mulligan.Nak, Reason: mulligan.Snoozed, Delay: 5})
	return r
}

func TestARecordSurvivesItsBucket(t *testing.T) {
	for name, r := range map[string]*mulligan.Record{"a full record": fullRecord(), "an empty record": {}} {
		got, err := mulligan.DecodeRecord(r.Encode())
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, r)
		}
	}
	for _, bad := range []string{"", "{", "[]", `{"attempts":"x"}`, `{"move":{"due":"then"}}`} {
		if got, err := mulligan.DecodeRecord([]byte(bad)); err == nil {
			t.Errorf("%q reads as %+v, want an error", bad, got)
		}
	}
}

func TestARecordsHistory(t *testing.T) {
	r := new(mulligan.Record)
	if got := r.Last(); got.Run != "" || got.Number != 0 {
		t.Errorf("the last attempt of none is %+v", got)
	}
	for i := 1; i <= 40; i++ {
		r.Note(mulligan.Attempt{Number: i, Run: fmt.Sprint("r", i), Error: strings.Repeat("x\n", 600)})
	}
	if n := len(r.History); n != 32 || r.History[0].Number != 9 || r.Last().Number != 40 {
		t.Errorf("after 40 attempts it has %d, from %d to %d; want the newest 32", n, r.History[0].Number, r.Last().Number)
	}
	if e := r.Last().Error; len(e) > 520 || strings.Contains(e, "\n") {
		t.Errorf("an error of %d bytes is kept, want a short line", len(e))
	}
	if a := r.Noted("r12"); a == nil || a.Number != 12 {
		t.Errorf("run r12 is found as %+v", a)
	}
	if a := r.Noted("r1"); a != nil {
		t.Errorf("run r1, long forgotten, is found as %+v", a)
	}
}

func TestDeferralsInARowAreOneEntry(t *testing.T) {
	r := new(mulligan.Record)
	deferral := func(number int, why mulligan.Reason, run string) mulligan.Attempt {
		return mulligan.Attempt{Number: number, Verb: mulligan.Defer, Reason: why, Run: run, ErrorType: "error"}
	}
	r.Note(mulligan.Attempt{Number: 1, Verb: mulligan.Park, Run: "a", ErrorType: "error"})
	for _, a := range []mulligan.Attempt{
		deferral(1, mulligan.Credential, "b"), deferral(1, mulligan.Credential, "c"), deferral(1, mulligan.Credential, "d"),
		deferral(1, mulligan.Held, "e"),
		deferral(2, mulligan.Held, "f"),
		deferral(2, mulligan.UserBudget, "g"), deferral(2, mulligan.UserBudget, "h"), // each is a failed attempt, too
	} {
		r.Note(a)
	}
	var got []string
	for _, a := range r.History {
		got = append(got, fmt.Sprint(a.Run, a.Times))
	}
	if want := "a0 d3 e0 f0 g0 h0"; strings.Join(got, " ") != want {
		t.Errorf("the history has %v, want %s", got, want)
	}
}

func TestOnlyEndedKeysHaveEnded(t *testing.T) {
	for state, want := range map[mulligan.State]bool{
		"": false, mulligan.Live: false, mulligan.Parked: false, mulligan.Spent: true, mulligan.Dead: true, mulligan.Done: true,
	} {
		r := mulligan.Record{State: state}
		receipt := mulligan.Receipt{State: state}
		if r.Ended() != want || receipt.Ended() != want {
			t.Errorf("state %q: record ended %v, receipt ended %v; want %v", state, r.Ended(), receipt.Ended(), want)
		}
	}
}

func TestAResultIsKeptUpToItsLimit(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		kept bool
	}{
		{"an empty result is kept", 0, true},
		{"a result of the limit is kept", mulligan.DefaultMaxResult, true},
		{"of a larger result the size and fingerprint are kept", mulligan.DefaultMaxResult + 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := bytes.Repeat([]byte("r"), tt.size)
			got := mulligan.NewResult(data, stored()).Within(mulligan.DefaultMaxResult)
			if got.Size != tt.size || got.Fingerprint != mulligan.FingerprintOf(data) || got.TooLarge == tt.kept || tt.kept && !bytes.Equal(got.Data, data) || !tt.kept && got.Data != nil {
				t.Errorf("a result of %d bytes: got size %d, %d bytes kept, too large %v", tt.size, got.Size, len(got.Data), got.TooLarge)
			}
		})
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(fullRecord().Encode())
	for _, seed := range []string{"", "null", "{}", "[]", `{"state":"done","history":[{}]}`, `{"move":{"due":"9999-12-31T23:59:59.999999999-23:59"}}`, `{"changed":"AA=="}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := mulligan.DecodeRecord(b)
		if err != nil {
			return
		}
		once := r.Encode()
		again, err := mulligan.DecodeRecord(once)
		if err != nil || !bytes.Equal(again.Encode(), once) {
			t.Fatalf("%s reads as %s, and that as %+v, %v", b, once, again, err)
		}
	})
}

func TestARecordOfAnOlderProgramIsRead(t *testing.T) {
	const old = `{"state":"live","payload":"f","attempts":1,"spent_ns":5,"starts":1,"start":"$JS.ACK.x","move":{"address":"J:1","verb":"nak"}}`
	r, err := mulligan.DecodeRecord([]byte(old))
	if err != nil || r.Starts != 1 || r.Attempts != 1 || r.Open() != nil {
		t.Errorf("got %+v, %v", r, err)
	}
}
