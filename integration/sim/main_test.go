package sim

import (
	"flag"
	"os"
	"testing"

	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestMain(m *testing.M) {
	// A life takes most of a second of a core under the race detector; make sim
	// lives through many more. The command line still decides.
	if err := flag.Set("rapid.checks", "40"); err != nil {
		panic(err)
	}
	os.Exit(natstest.Main(m))
}
