package main

import (
	"fmt"
	"regexp"
	"strings"
)

// hint is a call of the program that a shell takes as it is meant, whatever the
// ID is: flags come before kind and ID, so that a -- can keep an ID from being
// one.
func hint(kind, id string, words ...string) string {
	if strings.HasPrefix(kind, "-") || strings.HasPrefix(id, "-") {
		words = append(words, "--")
	}
	return fmt.Sprintf("`mulligan %s %s %s`", strings.Join(words, " "), kind, quote(id))
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.:/@%+,-]+$`)

// quote makes one word of s for a shell. What a terminal does not show, or what
// is lost when white space is folded, is written as an escape.
func quote(s string) string {
	switch {
	case plainWord.MatchString(s):
		return s
	case printable(s) == s && !strings.Contains(s, "  ") && strings.TrimSpace(s) == s:
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := range len(s) {
		if c := s[i]; plainWord.MatchString(string(rune(c))) && c < 0x80 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + "'"
}

// resolveHint is the choice that a person has about a job in doubt.
func resolveHint(kind, id string) string {
	return fmt.Sprintf("%s if its effect happened, %s if it did not",
		hint(kind, id, "dead", "resolve", "--done"), hint(kind, id, "dead", "resolve", "--not-done"))
}
