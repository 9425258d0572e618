package config

import (
	"fmt"
	"net"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/rs/zerolog"
)

// Settings are where the program finds and keeps things. An empty field means
// that nobody has set it; Read fills in the defaults of those that have one.
type Settings struct {
	// Config is the path of the file of kinds.
	Config string `env:"MULLIGAN_CONFIG" yaml:"-"`
	// Data is where the embedded server keeps its streams.
	Data string `env:"MULLIGAN_DATA" yaml:"data"`
	// HTTP is where the HTTP API listens. It stays empty if nobody has set it,
	// since only some commands serve HTTP unasked, on [DefaultHTTP].
	HTTP string `env:"MULLIGAN_HTTP" yaml:"http"`
	// NATSListen is where the embedded server takes clients.
	NATSListen string `env:"MULLIGAN_NATS_LISTEN" yaml:"nats_listen"`
	// NATSURL and NATSCreds lead to a NATS server that runs elsewhere.
	NATSURL   string `env:"NATS_URL" yaml:"nats_url"`
	NATSCreds string `env:"NATS_CREDS" yaml:"nats_creds"`
	// Token is asked for by the HTTP API and the embedded server. It is secret,
	// and so has no place in the file.
	Token string `env:"MULLIGAN_TOKEN" yaml:"-"`
	// LogLevel is debug, info, warn or error, LogFormat console or json; empty
	// means console on a terminal.
	LogLevel  string `env:"MULLIGAN_LOG_LEVEL" yaml:"log_level"`
	LogFormat string `env:"MULLIGAN_LOG_FORMAT" yaml:"log_format"`
	// Sync is when the embedded server flushes to disk: always, before it
	// answers, so that an accepted job survives a loss of power; or every so
	// often, such as 1s, which is faster and survives only the process.
	Sync string `env:"MULLIGAN_SYNC" yaml:"sync"`
}

// What is used where nothing is set.
const (
	DefaultData       = "./mulligan-data"
	DefaultHTTP       = "127.0.0.1:8090"
	DefaultNATSListen = "127.0.0.1:4222"
	DefaultNATSURL    = "nats://127.0.0.1:4222"
	DefaultLogLevel   = "info"
	DefaultSync       = SyncAlways
)

// SyncAlways is the Sync that flushes before it answers.
const SyncAlways = "always"

// Read returns the settings of an environment, given as os.Environ does, over
// those of a file. A variable that is empty is not set; of two values the later
// one counts.
func Read(environ []string, file Settings) (Settings, error) {
	return read(environ, fileSettings{Settings: file})
}

// fileSettings are those of the file at a path.
type fileSettings struct {
	Settings
	path string
}

func read(environ []string, file fileSettings) (Settings, error) {
	s := Settings{Data: DefaultData, NATSListen: DefaultNATSListen, LogLevel: DefaultLogLevel, Sync: DefaultSync}
	s.take(file.Settings)
	vars := map[string]string{}
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		if value != "" {
			vars[name] = value
		}
	}
	if err := env.ParseWithOptions(&s, env.Options{Environment: vars}); err != nil {
		return s, fmt.Errorf("read the environment: %w", err)
	}
	return s, s.validate(func(variable string) string {
		if key := file.key(variable); vars[variable] == "" && key != "" {
			return file.path + ": settings." + key
		}
		return variable
	})
}

// key is the file's key for what a variable says too, if the file has it.
func (f fileSettings) key(variable string) string {
	for field, value := range reflect.ValueOf(f.Settings).Fields() {
		if field.Tag.Get("env") == variable && value.String() != "" {
			return field.Tag.Get("yaml")
		}
	}
	return ""
}

func (s *Settings) take(file Settings) {
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&s.Data, file.Data}, {&s.HTTP, file.HTTP}, {&s.NATSListen, file.NATSListen}, {&s.NATSURL, file.NATSURL},
		{&s.NATSCreds, file.NATSCreds}, {&s.LogLevel, file.LogLevel}, {&s.LogFormat, file.LogFormat}, {&s.Sync, file.Sync},
	} {
		if f.from != "" {
			*f.to = f.from
		}
	}
}

// validate reports the first setting that makes no sense, by the name of where
// it was set: name gives that of a variable.
func (s Settings) validate(name func(variable string) string) error {
	if _, err := s.Level(); err != nil {
		return fmt.Errorf("%s %w", name("MULLIGAN_LOG_LEVEL"), err)
	}
	switch s.LogFormat {
	case "", "console", "json":
	default:
		return fmt.Errorf("%s %q is not console or json", name("MULLIGAN_LOG_FORMAT"), s.LogFormat)
	}
	if _, err := SyncInterval(s.Sync); err != nil {
		return fmt.Errorf("%s %w", name("MULLIGAN_SYNC"), err)
	}
	if err := s.checkListen(name("MULLIGAN_NATS_LISTEN"), s.NATSListen); err != nil {
		return err
	}
	if s.HTTP != "" {
		if err := s.checkListen(name("MULLIGAN_HTTP"), s.HTTP); err != nil {
			return err
		}
	}
	return checkNATSURL(name("NATS_URL"), s.NATSURL)
}

// checkListen refuses an address that strangers could reach without a token.
func (s Settings) checkListen(name, addr string) error {
	public, err := Public(addr)
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	if public && s.Token == "" {
		return fmt.Errorf("%s %s is not a loopback address: set MULLIGAN_TOKEN to a secret that clients must send, or listen on 127.0.0.1", name, addr)
	}
	return nil
}

// Public reports whether others than this machine can reach a listener on addr.
func Public(addr string) (bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" {
		return true, fmt.Errorf("%q is not an address such as 127.0.0.1:8090", addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return true, fmt.Errorf("%q has no port between 0 and 65535", addr)
	}
	if host == "localhost" {
		return false, nil
	}
	ip := net.ParseIP(host)
	return ip == nil || !ip.IsLoopback(), nil
}

func checkNATSURL(name, list string) error {
	if list == "" {
		return nil
	}
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || u.Hostname() == "" {
			// Not shown: it may have a password in it.
			return fmt.Errorf("%s is not a URL such as nats://127.0.0.1:4222; it is that of --server", name)
		}
	}
	return nil
}

// Level is the log level.
func (s Settings) Level() (zerolog.Level, error) {
	l, err := zerolog.ParseLevel(s.LogLevel)
	if err != nil || l == zerolog.NoLevel || s.LogLevel == "" {
		return l, fmt.Errorf("%q is not one of debug, info, warn, error", s.LogLevel)
	}
	return l, nil
}

// SyncInterval is the time between two flushes to disk; zero is always.
func SyncInterval(sync string) (time.Duration, error) {
	if sync == SyncAlways {
		return 0, nil
	}
	d, err := time.ParseDuration(sync)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is neither always nor a duration such as 1s", sync)
	}
	return d, nil
}
