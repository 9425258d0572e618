package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/nats-io/nats-server/v2/server"

	configfile "github.com/mulligan-queue/mulligan/internal/config"
	"github.com/mulligan-queue/mulligan/internal/embedded"
)

func TestDeployConfigFilesAreRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, host string }{
		{"demo.yaml", "http://127.0.0.1:9000"},
		{"compose-kinds.yaml", "http://host.docker.internal:9000"},
	} {
		f, err := configfile.Parse(read(t, "deploy", c.file))
		if err != nil {
			t.Fatalf("%s: %v", c.file, err)
		}
		var got []string
		for _, k := range f.Kinds {
			got = append(got, fmt.Sprintf("%s %s %s %s", k.Name, k.Effect, k.Downstream, f.Targets[k.Name].URL))
		}
		want := []string{"email.send keyed mailer " + c.host + "/send", "llm.complete pure llm " + c.host + "/complete"}
		if !slices.Equal(got, want) {
			t.Errorf("%s has\n%q, want\n%q", c.file, got, want)
		}
	}
}

// compose is what a compose file is read for here.
type compose struct {
	Services map[string]struct {
		Image       string
		Build       struct{ Context, Dockerfile string }
		Command     []string
		Environment map[string]string
		Volumes     []string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Deploy      struct{ Replicas int }
	}
	Volumes map[string]any
}

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	if err := yaml.Unmarshal(read(t, "deploy", "compose.yaml"), &c); err != nil {
		t.Fatal(yaml.FormatError(err, false, true))
	}
	return c
}

func TestDeployComposeFileHangsTogether(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for _, name := range []string{"nats", "provision", "scheduler", "worker"} {
		if _, ok := c.Services[name]; !ok {
			t.Errorf("there is no service %s", name)
		}
	}
	if n := c.Services["worker"].Deploy.Replicas; n != 2 {
		t.Errorf("%d workers, want 2", n)
	}
	for name, s := range c.Services {
		for on := range s.DependsOn {
			if _, ok := c.Services[on]; !ok {
				t.Errorf("service %s depends on %s, which there is not", name, on)
			}
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if _, named := c.Volumes[source]; named {
				continue
			}
			if _, err := os.Stat(filepath.Join(repository(t), "deploy", source)); err != nil {
				t.Errorf("service %s mounts what there is not: %v", name, err)
			}
		}
		if b := s.Build; b.Dockerfile != "" {
			read(t, "deploy", b.Context, b.Dockerfile)
		}
	}
}

// Each service's settings and command are given to the program with --help: it
// refuses a command or a flag that it does not have.
func TestDeployCommandsAreTheProgramsOwn(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"NATS_URL": true, "NATS_CREDS": true}
	for _, name := range []string{"CONFIG", "DATA", "HTTP", "NATS_LISTEN", "TOKEN", "LOG_LEVEL", "LOG_FORMAT", "SYNC"} {
		known["MULLIGAN_"+name] = true
	}
	mulligan := program(t)
	for name, s := range readCompose(t).Services {
		if s.Image != "mulligan" {
			continue
		}
		for variable := range s.Environment {
			if !known[variable] {
				t.Errorf("service %s sets %s, which the program does not read", name, variable)
			}
		}
		cmd := exec.CommandContext(t.Context(), mulligan, append(slices.Clone(s.Command), "--help")...)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "mulligan "+s.Command[0]) {
			t.Errorf("service %s: mulligan %v --help: %v\n%s", name, s.Command, err, out)
		}
	}
}

func TestDeployNATSConfigIsAsTheEmbeddedServers(t *testing.T) {
	t.Parallel()
	opts, err := server.ProcessConfigFile(filepath.Join(repository(t), "deploy", "nats-server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if opts.MaxPayload != embedded.MaxPayload || !opts.JetStream || !opts.SyncAlways || opts.JetStreamMaxStore != 4<<30 || opts.HTTPPort != 8222 || opts.StoreDir != "/data" {
		t.Errorf("got max_payload %d, JetStream %v, sync always %v, at most %d bytes, monitoring port %d, data in %s",
			opts.MaxPayload, opts.JetStream, opts.SyncAlways, opts.JetStreamMaxStore, opts.HTTPPort, opts.StoreDir)
	}
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{repository(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
