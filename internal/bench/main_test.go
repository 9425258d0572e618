package bench

import (
	"os"
	"testing"

	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestMain(m *testing.M) { os.Exit(natstest.Main(m)) }
