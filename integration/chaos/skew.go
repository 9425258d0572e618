//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// skewVariable tells a skewed program by how many nanoseconds its clock is
// wrong.
const skewVariable = "CHAOS_CLOCK_SKEW"

// The change to the time package of the standard library: the wall clock is
// wrong, the monotonic one is not.
const (
	clockRead    = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {"
	clockReadNew = "\tsec, nsec, mono := runtimeNow()\n\tsec, nsec = skewed(sec, nsec)\n\tif mono == 0 {"
	clockImport  = "import (\n"
	clockSkew    = `
var clockSkew = readClockSkew()

func readClockSkew() (skew int64) {
	text, _ := syscall.Getenv("` + skewVariable + `")
	sign := int64(1)
	for i := range len(text) {
		if text[i] == '-' {
			sign = -1
			continue
		}
		skew = skew*10 + int64(text[i]-'0')
	}
	return sign * skew
}

func skewed(sec int64, nsec int32) (int64, int32) {
	const second = 1_000_000_000
	sum := int64(nsec) + clockSkew%second
	sec += clockSkew / second
	if sum < 0 {
		return sec - 1, int32(sum + second)
	}
	return sec + sum/second, int32(sum % second)
}
`
)

// Programs built for a run.
const (
	programNATS     = "nats-server"
	programMulligan = "mulligan"
	programSkewed   = "mulligan-skewed" // the same, its clock wrong by skewVariable
	raceSuffix      = "-race"           // of both, built with the race detector
)

// build builds the programs into dir, those with the race detector if a run needs
// them.
func build(ctx context.Context, dir string, raced bool) error {
	overlay, err := patchClock(ctx, dir)
	if err != nil {
		return fmt.Errorf("patch the clock: %w", err)
	}
	const product = "github.com/mulligan-queue/mulligan/cmd/mulligan"
	programs := [][]string{
		{"-o", filepath.Join(dir, programNATS), "github.com/nats-io/nats-server/v2"},
		{"-o", filepath.Join(dir, programMulligan), product},
		{"-o", filepath.Join(dir, programSkewed), "-overlay", overlay, product},
	}
	if raced {
		programs = append(programs,
			[]string{"-race", "-o", filepath.Join(dir, programMulligan+raceSuffix), product},
			[]string{"-race", "-o", filepath.Join(dir, programSkewed+raceSuffix), "-overlay", overlay, product})
	}
	for _, args := range programs {
		c := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath"}, args...)...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if args[0] == "-race" {
			c.Env = append(os.Environ(), "CGO_ENABLED=1")
		}
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return nil
}

// patchClock writes the overlay that gives a program a wrong clock.
func patchClock(ctx context.Context, dir string) (overlay string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	b, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	text := string(b)
	if strings.Count(text, clockRead) != 1 {
		return "", errors.New("time.Now of this Go is not as expected: adapt clockRead to " + source)
	}
	text = strings.Replace(text, clockRead, clockReadNew, 1)
	text = strings.Replace(text, clockImport, clockImport+"\t\"syscall\"\n", 1) + clockSkew
	patched := filepath.Join(dir, "time.go")
	if err := os.WriteFile(patched, []byte(text), 0o600); err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {source: patched}})
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, replace, 0o600)
}
