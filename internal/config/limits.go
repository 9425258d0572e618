package config

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// What a file may be. The YAML library's work grows with the square of the
// depth, and with merge keys as a power of two.
const (
	maxFile  = 1 << 20 // bytes
	maxDepth = 20      // brackets within brackets, or lists begun on one line
	maxNodes = 100_000 // with all aliases written out
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
	return few(b)
}

// few reports a file that says little and, its aliases written out, means a lot.
func few(b []byte) error {
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil // whoever reads the file says what is wrong with it
	}
	c := &counter{anchors: map[string]int{}}
	for _, doc := range file.Docs {
		ast.Walk(c, doc.Body)
	}
	if c.nodes > maxNodes {
		return fmt.Errorf("its aliases stand for more than %d entries", maxNodes)
	}
	return nil
}

// counter counts nodes; one more than maxNodes stands for all that is more.
type counter struct {
	nodes   int
	anchors map[string]int // how many each stands for
}

func (c *counter) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.AnchorNode:
		inner := &counter{anchors: c.anchors}
		ast.Walk(inner, n.Value)
		c.anchors[n.Name.GetToken().Value] = inner.nodes
		c.add(inner.nodes)
		return nil
	case *ast.AliasNode:
		c.add(c.anchors[n.Value.GetToken().Value])
		return nil
	}
	c.add(1)
	return c
}

func (c *counter) add(n int) { c.nodes = min(c.nodes+n, maxNodes+1) }
