package supervisor

import (
	"testing"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
)

// TestOwnVariablesAreNoSettings: a worker's environment holds them beside settings, and a
// program that a worker starts may read its configuration.
func TestOwnVariablesAreNoSettings(t *testing.T) {
	var env []string
	for _, name := range []string{ipc.EnvPool, ipc.EnvSlot, ipc.EnvGeneration, ipc.EnvFDNames, ipc.EnvRow, ipc.EnvHeld} {
		env = append(env, name+"=1")
	}
	l, err := config.Load(config.Sources{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Warnings) != 0 {
		t.Errorf("%q", l.Warnings)
	}
}
