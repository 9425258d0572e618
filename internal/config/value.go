package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// A whole is a whole number that may be left out. The library would cut the
// fraction off one that has it.
type whole struct {
	given bool
	n     int
}

// UnmarshalYAML reads a whole number; null leaves it out.
func (w *whole) UnmarshalYAML(n ast.Node) error {
	if n.Type() == ast.NullType {
		return nil
	}
	var f float64
	if err := yaml.NodeToValue(n, &f); err == nil && f != math.Trunc(f) || math.IsInf(f, 0) {
		return &yaml.SyntaxError{Message: fmt.Sprintf("%.40s is not a whole number", n), Token: n.GetToken()}
	}
	if err := yaml.NodeToValue(n, &w.n); err != nil {
		return err
	}
	w.given = true
	return nil
}

// zero reports whether it was written, and as zero: nobody who does that wants
// the default.
func (w whole) zero() bool { return w.given && w.n == 0 }

// A span is a duration as it is written.
type span struct{ key, text, otherwise string }

// read reads text such as 100ms; nothing is zero, which stands for what is used
// otherwise.
func (s span) read() (time.Duration, error) {
	if s.text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s.text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s %.40q is not a duration such as 100ms or 5s", s.key, s.text)
	case d < 0:
		return 0, fmt.Errorf("%s %s is negative", s.key, s.text)
	case d == 0:
		return 0, fmt.Errorf("%s is 0; leave it out for %s", s.key, s.otherwise)
	}
	return d, nil
}

var sizeText = regexp.MustCompile(`^([0-9]{1,12}) ?(KiB|MiB|B)?$`)

// size reads a number of bytes such as 65536, 64KiB or 1MiB; nothing is zero.
func size(key, text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	m := sizeText.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%s %.40q is not a number of bytes such as 65536, 64KiB or 1MiB", key, text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s %.40q: %w", key, text, err)
	}
	switch m[2] {
	case "KiB":
		n <<= 10
	case "MiB":
		n <<= 20
	}
	switch {
	case n == 0:
		return 0, fmt.Errorf("%s is 0; leave it out for the default of 64KiB", key)
	case n > math.MaxInt32:
		return 0, fmt.Errorf("%s %s is more than a message can hold", key, text)
	}
	return int(n), nil
}
