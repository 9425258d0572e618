package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestAHintIsSafeToPaste(t *testing.T) {
	for _, c := range []struct{ name, id, want string }{
		{"a plain ID stands as it is", "order-42", "`mulligan job a.b order-42`"},
		{"an ID that a shell would take apart is quoted", "a b; rm -rf /", "`mulligan job a.b 'a b; rm -rf /'`"},
		{"a quote in it is quoted too", "it's $HOME", `'it'\''s $HOME'`},
		{"an ID like a flag comes behind --", "-rf", "`mulligan job -- a.b -rf`"},
		{"both at once", "--done; x", "`mulligan job -- a.b '--done; x'`"},
		{"what zsh expands is quoted", "=ls", "'=ls'"},
		{"home is not expanded", "~", "'~'"},
		{"two spaces stay two", "a  b", `$'a\x20\x20b'`},
		{"what no terminal shows is escaped", "a\u202eb", `$'a\xe2\x80\xaeb'`},
		{"letters of any alphabet stay", "größe", "'größe'"},
		{"a malformed ID of nothing is a word", "", "a.b ''"},
	} {
		if got := hint("a.b", c.id, "job"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q gave %s, want %s", c.name, c.id, got, c.want)
		}
	}
	if got := hint("-k", "1", "dead", "show"); got != "`mulligan dead show -- -k 1`" {
		t.Errorf("a kind like a flag: %s", got)
	}
}

func TestAShellReadsAQuotedWordAsItWas(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Log("no bash here: only the quoting's form is checked, in the other test")
		return
	}
	for _, id := range []string{"a b; rm -rf /", "it's", "$(id)`id`", `a\b`, "a  b", "a\u202eb\u00a0", "*?[x]", "!!", "a\"b", "\x80\xff0", "#x", "{a,b}", "ö  x"} {
		out, err := exec.CommandContext(t.Context(), bash, "-c", "printf %s "+quote(id)).Output()
		if err != nil || string(out) != id {
			t.Errorf("%q came back as %q, %v, from %s", id, out, err, quote(id))
		}
	}
}
