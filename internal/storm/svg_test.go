package storm

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestThePictureHasAPanelForEachPolicy(t *testing.T) {
	t.Parallel()
	c := named(t, "standard", 0.7)
	policies := Policies()
	reports := Run(c, policies, Seeds{1, 1}, nil)
	var b bytes.Buffer
	if err := Draw(&b, c[0], reports); err != nil {
		t.Fatal(err)
	}
	for _, p := range policies {
		if n := strings.Count(b.String(), ">"+p.Name+"</text>"); n != 1 {
			t.Errorf("policy %q is there %d times", p.Name, n)
		}
	}
	if n := strings.Count(b.String(), "<polyline"); n != len(policies) {
		t.Errorf("%d lines of attempts, want %d", n, len(policies))
	}
	for d := xml.NewDecoder(&b); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
