package sim

import (
	"flag"
	"os"
	"testing"

	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// TestMain has go test live through the same hundred lives every time; the command
// line decides otherwise, and make sim draws others.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
	os.Exit(natstest.Main(m))
}
