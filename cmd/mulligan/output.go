package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
)

// terminal reports whether a person watches w.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// printJSON prints v over several lines, for programs and for people.
func (p *program) printJSON(v any) error {
	e := json.NewEncoder(p.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printLine prints v as one line of JSON.
func (p *program) printLine(v any) error {
	e := json.NewEncoder(p.out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func (p *program) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, format, args...)
}

// printTable prints rows under a header. Cells are cut to what a line can show.
func (p *program) printTable(header table.Row, rows []table.Row) {
	const widest = 100
	t := table.NewWriter()
	t.SetOutputMirror(p.out)
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	t.SetStyle(style)
	t.AppendHeader(header)
	for _, row := range rows {
		for i, cell := range row {
			if s, ok := cell.(string); ok {
				row[i] = shorten(printable(s), widest)
			}
		}
		t.AppendRow(row)
	}
	t.Render()
}

// printable takes out of a text what would move a terminal's cursor or worse:
// much of what is shown was written by strangers.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func shorten(s string, runes int) string {
	if utf8.RuneCountInString(s) <= runes {
		return s
	}
	return string([]rune(s)[:runes-1]) + "…"
}

// local is a time for people.
func local(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// asValue shows bytes in JSON: JSON as the value it is, other text as a string.
// What is neither is base64, which the encoding says.
func asValue(b []byte) (value json.RawMessage, encoding string) {
	switch {
	case len(b) == 0:
		return nil, ""
	case utf8.Valid(b) && json.Valid(b):
		return b, "json"
	case utf8.Valid(b):
		return quoted(string(b)), "text"
	}
	return quoted(b), "base64"
}

func quoted(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and bytes only
	}
	return b
}
