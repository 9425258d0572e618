package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// A package that starts goroutines, in its code or in its tests, has a TestMain that
// fails if one is left.
func TestImportsOfThoseWhoStartGoroutinesHaveALeakCheck(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "./...") {
		name, _ := ours(p.ImportPath)
		files, err := filepath.Glob(filepath.Join(repository(t), name, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("package %s has no files: %v", name, err)
		}
		starts, checks := "", false
		for _, path := range files {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if startsGoroutine(n) {
					starts = path
				}
				main, ok := n.(*ast.FuncDecl)
				checks = checks || ok && main.Name.Name == "TestMain" && runsMain(main)
				return true
			})
		}
		if starts != "" && !checks {
			t.Errorf("package %s starts goroutines (%s) and does not look for those that are left: give its tests a TestMain with natstest.Main", name, filepath.Base(starts))
		}
	}
}

// startsGoroutine reports whether n is a go statement, a call of a WaitGroup's Go,
// or an import of what starts a server.
func startsGoroutine(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		return ok && f.Sel.Name == "Go"
	case *ast.ImportSpec:
		switch n.Path.Value {
		case `"` + module + `/internal/natstest"`, `"net/http/httptest"`, `"github.com/nats-io/nats-server/v2/server"`:
			return true
		}
	}
	return false
}

// runsMain reports whether a TestMain calls natstest.Main.
func runsMain(main *ast.FuncDecl) (runs bool) {
	ast.Inspect(main, func(n ast.Node) bool {
		f, ok := n.(*ast.SelectorExpr)
		if ok && f.Sel.Name == "Main" {
			of, named := f.X.(*ast.Ident)
			runs = runs || named && of.Name == "natstest"
		}
		return !runs
	})
	return runs
}
