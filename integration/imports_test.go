package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mulligan-queue/mulligan"

// mayImport is what each package may import of ours: imports go downward only. The
// root package is ".". Tests may import more.
func mayImport() map[string][]string {
	const root = "."
	return map[string][]string{
		root:                        {"internal/call", "internal/pause"},
		"internal/call":             {"internal/pause"},
		"internal/clock":            {},
		"internal/pause":            {},
		"internal/pull":             {},
		"internal/cas":              {"internal/call", "internal/pause"},
		"budget":                    {root, "internal/cas", "internal/call", "internal/clock"},
		"dedupe":                    {root, "internal/cas", "internal/call"},
		"metrics":                   {root, "internal/cas", "internal/call"},
		"consumer":                  {root, "budget", "dedupe", "metrics", "internal/cas", "internal/call", "internal/clock", "internal/pause", "internal/pull", "internal/watch"},
		"consumer/consumertest":     {root, "consumer"},
		"scheduler":                 {root, "budget", "dedupe", "metrics", "internal/cas", "internal/call", "internal/clock", "internal/pause", "internal/pull", "internal/watch"},
		"internal/api":              {root},
		"internal/bench":            {root, "budget", "consumer"},
		"internal/config":           {root, "budget", "consumer"},
		"internal/demo":             {root},
		"internal/doctor":           {root, "consumer", "scheduler", "internal/pause"},
		"internal/embedded":         {},
		"internal/natstest":         {root},
		"internal/storm":            {root, "budget"},
		"internal/watch":            {root, "internal/pause"},
		"integration":               {},
		"integration/crash":         {},
		"integration/protocol":      {},
		"integration/sim":           {},
		"integration/chaos":         {root, "integration/chaos/witness"},
		"integration/chaos/witness": {root},
		"cmd/mulligan": {root, "budget", "dedupe", "metrics", "consumer", "scheduler",
			"internal/api", "internal/bench", "internal/call", "internal/config", "internal/demo", "internal/doctor", "internal/embedded", "internal/pause", "internal/storm"},
	}
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// ours is a path within the module, and whether it is in it.
func ours(path string) (within string, ok bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

func TestImportsGoDownwardOnly(t *testing.T) {
	t.Parallel()
	table := mayImport()
	for _, p := range goList(t, "./...") {
		name, _ := ours(p.ImportPath)
		allowed, known := table[name]
		if !known {
			t.Errorf("package %s is not in the table: say there what it may import", name)
			continue
		}
		for _, path := range p.Imports {
			if within, ok := ours(path); ok && !slices.Contains(allowed, within) {
				t.Errorf("package %s imports %s; it may import %v", name, within, allowed)
			}
		}
	}
}

func TestImportsOfTestHelpersAreInTestsOnly(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "./...") {
		for _, path := range p.Deps {
			if path == module+"/internal/natstest" || strings.HasPrefix(path, module+"/internal/natstest/") {
				t.Errorf("package %s depends on %s outside of its tests", p.ImportPath, path)
			}
		}
	}
}

// A service that publishes pays for the NATS client alone.
func TestImportsOfTheRootPackageAreFew(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, ".") {
		for _, path := range p.Deps {
			domain, _, _ := strings.Cut(path, "/")
			if _, own := ours(path); own || !strings.Contains(domain, ".") || strings.HasPrefix(path, "golang.org/x/") {
				continue // ours are in the table
			}
			known := slices.ContainsFunc([]string{"nats-io/nats.go", "nats-io/nkeys", "nats-io/nuid", "klauspost/compress"}, func(repo string) bool {
				return path == "github.com/"+repo || strings.HasPrefix(path, "github.com/"+repo+"/")
			})
			if !known {
				t.Errorf("importing the root package pulls in %s", path)
			}
		}
	}
}

// goList lists packages as they are without their tests.
func goList(t *testing.T, pattern string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", pattern)
	cmd.Dir = repository(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", pattern, err, &stderr)
	}
	var list []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// repository is the directory of go.mod.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
