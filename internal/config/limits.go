package config

import (
	"fmt"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// What a file may be. The YAML library's work grows with the square of the
// depth, and with merge keys as a power of two.
const (
	maxFile  = 1 << 20 // bytes
	maxDepth = 20      // brackets within brackets, or lists begun on one line
)

// acceptable reports why a file is not read at all.
func acceptable(b []byte) error {
	if len(b) > maxFile {
		return fmt.Errorf("the file is over %d bytes", maxFile)
	}
	depth, lists, line := 0, 0, 0
	for _, t := range lexer.Tokenize(string(b)) {
		if t.Position.Line != line {
			lists, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return fmt.Errorf("line %d: anchors, aliases and merge keys are not read; write it out", line)
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			lists++
		}
		if depth > maxDepth || lists > maxDepth {
			return fmt.Errorf("line %d: nested deeper than %d", line, maxDepth)
		}
	}
	return nil
}
