package integration

import (
	"os"
	"testing"

	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestMain(m *testing.M) {
	code := natstest.Main(m)
	removeProgram()
	os.Exit(code)
}
