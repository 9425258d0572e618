package consumer

import (
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func TestHTTPTargetIsValidated(t *testing.T) {
	t.Parallel()
	const fine = "http://mailer:9000/send"
	for _, c := range []struct {
		name   string
		target *HTTPTarget
		want   string // part of the error; empty for none
	}{
		{"an http address is fine", &HTTPTarget{URL: fine, Headers: map[string]string{"X-Team": "mail", "Authorization": "Bearer x"}}, ""},
		{"an https address is fine", &HTTPTarget{URL: "https://mailer.example/send?team=a", Timeout: time.Second}, ""},
		{"no address", &HTTPTarget{}, "not absolute"},
		{"a path alone", &HTTPTarget{URL: "/send"}, "not absolute"},
		{"another protocol", &HTTPTarget{URL: "ftp://mailer/send"}, "not absolute"},
		{"a port without a host", &HTTPTarget{URL: "http://:9000/send"}, "not absolute"},
		{"what is not a URL", &HTTPTarget{URL: "http://[::1/send"}, "not absolute"},
		{"a port that cannot be", &HTTPTarget{URL: "http://mailer:90000/send"}, "port 90000"},
		{"a negative timeout", &HTTPTarget{URL: fine, Timeout: -time.Second}, "negative"},
		{"the key is not replaced", &HTTPTarget{URL: fine, Headers: map[string]string{"idempotency-key": "1"}}, "leave it out"},
		{"the job's facts are not replaced", &HTTPTarget{URL: fine, Headers: map[string]string{"mulligan-user": "eve"}}, "leave it out"},
		{"the length is not replaced", &HTTPTarget{URL: fine, Headers: map[string]string{"Content-Length": "1"}}, "leave it out"},
		{"a header without a name", &HTTPTarget{URL: fine, Headers: map[string]string{"X Team": "mail"}}, "not a header's name"},
		{"a header with two lines", &HTTPTarget{URL: fine, Headers: map[string]string{"X-Team": "a\r\nb"}}, "printable"},
		{"a header in two spellings", &HTTPTarget{URL: fine, Headers: map[string]string{"X-Team": "a", "x-team": "b"}}, "twice"},
	} {
		err := c.target.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestHTTPDownstreamIsTheHost(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://127.0.0.1:9000/send":       "127.0.0.1:9000",
		"https://Mailer.Example/v1?x=y":    "mailer.example",
		"https://user:secret@mailer/send":  "mailer",
		"http://[::1]:9000/send":           "ipv6:::1:9000",
		"http://[fe80::1%25eth0]:80/":      "ipv6:fe80::1-eth0:80",
		"http://[::1/send":                 "",
		"http://mailer.internal:8080/a/b/": "mailer.internal:8080",
	} {
		got := (&HTTPTarget{URL: url}).Downstream()
		if got != want {
			t.Errorf("downstream of %s: got %q, want %q", url, got, want)
		}
		if _, err := (mulligan.Kind{Name: "k", Effect: mulligan.Pure, Downstream: got}).Normal(); err != nil {
			t.Errorf("downstream of %s: %v", url, err)
		}
	}
}
