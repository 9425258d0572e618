package doctor

import (
	"strings"
	"testing"
)

// FuzzAnswer reads what whoever subscribes to $SRV may answer.
func FuzzAnswer(f *testing.F) {
	for _, answer := range []string{
		`{"id":"1","metadata":{"prefix":"mulligan.jobs","host":"h","pid":"1","kinds":"a,b","downstreams":"d","declared":"a=pure:abc,b=keyed:def"}}`,
		`{"metadata":{"prefix":"mulligan.jobs","declared":"=:,a=,a=:,,=a:b:c"}}`,
		`{"metadata":{"prefix":"mulligan.jobs","host":"\u001b[2J","kinds":"` + strings.Repeat("a,", 1000) + `"}}`,
		`{"prefix":"mulligan.jobs","host":"h","pid":"1","downstreams":[{"name":"d","held":"open","until":"2026-01-01T00:00:00Z","warnings":["downstream d: x: y",":"]}]}`,
		`{"prefix":"mulligan.jobs","downstreams":[{"name":"\u001b[2J","held":"gate","one_user":"credential"},{}]}`,
		`{"prefix":"other.jobs"}`, `null`, `[]`, ``, strings.Repeat("[", 20_000),
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		if p, ok := readProcess(answer, topology); ok {
			if len(p.Kinds)+len(p.Downstreams)+len(p.Declared) > len(answer)+1 {
				t.Errorf("%d bytes became %+v", len(answer), p)
			}
		}
		if s, ok := readState(answer, topology); ok {
			found := findings{}
			free := found.heldBy(s)
			if free < 0 || free > len(s.Downstreams) || free+len(found.found) < len(s.Downstreams) {
				t.Errorf("%d downstreams, %d of them free, and only %+v was found", len(s.Downstreams), free, found.found)
			}
			for _, one := range found.found {
				if len(one.Detail)+len(one.Do) > 2*len(answer)+500 || one.Status == "" || one.Check == "" {
					t.Errorf("found %+v", one)
				}
			}
		}
	})
}
