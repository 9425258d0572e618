package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// A File is what the config file says. A kind without a target is one that
// handlers in Go serve elsewhere.
type File struct {
	// Settings are those that the file may have; the rest is empty.
	Settings Settings
	// Kinds are normal and sorted by name, Targets are by kind.
	Kinds   []mulligan.Kind
	Targets map[string]*consumer.HTTPTarget
	// Downstreams has those of which something is set.
	Downstreams map[string]consumer.Downstream
	UserRate    budget.Rate
	Topology    mulligan.Topology
	HTTP        HTTP
}

// HTTP bounds what the HTTP API takes at once; zero is the default, see
// api.Server.
type HTTP struct{ MaxConnections, MaxRequests, MaxWaiting int }

// fileYAML is the file as it is written. Durations are text and parts are nodes
// so that a mistake in them can name its kind and key.
type fileYAML struct {
	Kinds       map[string]ast.Node `yaml:"kinds"`
	Downstreams map[string]ast.Node `yaml:"downstreams"`
	UserRate    struct {
		PerSecond *float64 `yaml:"per_second"`
		Burst     whole    `yaml:"burst"`
	} `yaml:"user_rate"`
	Topology struct {
		Prefix         string `yaml:"prefix"`
		Replicas       whole  `yaml:"replicas"`
		JobsMaxBytes   whole  `yaml:"jobs_max_bytes"`
		DeadMaxBytes   whole  `yaml:"dead_max_bytes"`
		EventsMaxBytes whole  `yaml:"events_max_bytes"`
	} `yaml:"topology"`
	HTTP struct {
		MaxConnections whole `yaml:"max_connections"`
		MaxRequests    whole `yaml:"max_requests"`
		MaxWaiting     whole `yaml:"max_waiting"`
	} `yaml:"http"`
	Settings Settings `yaml:"settings"`
}

// Parse reads a config file. A key that it does not know is an error.
func Parse(b []byte) (File, error) {
	if err := acceptable(b); err != nil {
		return File{}, err
	}
	var y fileYAML
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict())
	if err := d.Decode(&y); err != nil && !errors.Is(err, io.EOF) {
		return File{}, explain(err, b)
	}
	if err := d.Decode(new(fileYAML)); !errors.Is(err, io.EOF) {
		return File{}, errors.New("the file has more than one document; remove what follows ---")
	}
	f := File{Settings: y.Settings, Targets: map[string]*consumer.HTTPTarget{}, Downstreams: map[string]consumer.Downstream{}}
	f.Topology = mulligan.Topology{Prefix: y.Topology.Prefix, Replicas: y.Topology.Replicas.n, JobsMaxBytes: int64(y.Topology.JobsMaxBytes.n),
		DeadMaxBytes: int64(y.Topology.DeadMaxBytes.n), EventsMaxBytes: int64(y.Topology.EventsMaxBytes.n)}
	if err := f.Topology.Validate(); err != nil {
		return File{}, fmt.Errorf("topology: %w", err)
	}
	if err := f.readRate(&y); err != nil {
		return File{}, err
	}
	if err := f.readHTTP(&y); err != nil {
		return File{}, err
	}
	if err := f.readKinds(y.Kinds, b); err != nil {
		return File{}, err
	}
	return f, f.readDownstreams(y.Downstreams, b)
}

// Add adds the kinds of another file.
func (f *File) Add(other File) {
	if f.Targets == nil {
		f.Targets, f.Downstreams = map[string]*consumer.HTTPTarget{}, map[string]consumer.Downstream{}
	}
	f.Kinds = append(f.Kinds, other.Kinds...)
	maps.Copy(f.Targets, other.Targets)
	maps.Copy(f.Downstreams, other.Downstreams)
}

func (f *File) readRate(y *fileYAML) error {
	if p := y.UserRate.PerSecond; p != nil {
		if f.UserRate.PerSecond = *p; *p == 0 {
			return errors.New("user_rate.per_second is 0; leave it out for the default")
		}
	}
	if f.UserRate.Burst = y.UserRate.Burst.n; y.UserRate.Burst.zero() {
		return errors.New("user_rate.burst is 0; leave it out for the default")
	}
	if _, err := f.UserRate.Normal(); err != nil {
		return fmt.Errorf("user_rate: %w", err)
	}
	return nil
}

func (f *File) readHTTP(y *fileYAML) error {
	const most = 1_000_000
	for _, limit := range []struct {
		key  string
		from whole
		to   *int
	}{
		{"max_connections", y.HTTP.MaxConnections, &f.HTTP.MaxConnections},
		{"max_requests", y.HTTP.MaxRequests, &f.HTTP.MaxRequests},
		{"max_waiting", y.HTTP.MaxWaiting, &f.HTTP.MaxWaiting},
	} {
		if n := limit.from.n; limit.from.given && (n < 1 || n > most) {
			return fmt.Errorf("http.%s %d is not between 1 and %d; leave it out for the default", limit.key, n, most)
		}
		*limit.to = limit.from.n
	}
	return nil
}

func (f *File) readKinds(nodes map[string]ast.Node, source []byte) error {
	named := map[string]string{} // the kind that names a downstream's concurrency
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		if err := mulligan.ValidKindName(name); err != nil {
			return err
		}
		y := kindYAML{}
		if err := decode(nodes[name], &y, source); err != nil {
			return fmt.Errorf("kind %s: %w", name, err)
		}
		kind, err := y.kind(name, source)
		if err != nil {
			return err
		}
		f.Kinds = append(f.Kinds, kind)
		if y.HTTP == nil {
			continue
		}
		f.Targets[name] = y.HTTP.target()
		if err := f.limit(kind, y.HTTP.Concurrency.n, named); err != nil {
			return err
		}
	}
	return nil
}

// limit sets a downstream's concurrency, which all its kinds share.
func (f *File) limit(kind mulligan.Kind, concurrency int, named map[string]string) error {
	if concurrency == 0 {
		return nil
	}
	have, ok := f.Downstreams[kind.Downstream]
	if ok && have.Concurrency != concurrency {
		return fmt.Errorf("kinds %s and %s share the downstream %s but name different http.concurrency, %d and %d; make them one",
			named[kind.Downstream], kind.Name, kind.Downstream, have.Concurrency, concurrency)
	}
	named[kind.Downstream] = kind.Name
	f.Downstreams[kind.Downstream] = consumer.Downstream{Concurrency: concurrency}
	return nil
}

// decode reads a part of the file; null leaves it as it is.
func decode(n ast.Node, into any, source []byte) error {
	if n == nil || n.Type() == ast.NullType {
		return nil
	}
	if err := yaml.NodeToValue(n, into, yaml.Strict()); err != nil {
		return explain(err, source)
	}
	return nil
}

// explain makes one line of a YAML library's error, with the line that it is
// about.
func explain(err error, source []byte) error {
	var (
		at       yaml.Error
		wrong    *yaml.TypeError
		overflow *yaml.OverflowError
	)
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fmt.Errorf("not YAML: %s", oneLine(err.Error()))
	}
	line := at.GetToken().Position.Line
	text := ""
	if lines := bytes.Split(source, []byte("\n")); line >= 1 && line <= len(lines) {
		text = fmt.Sprintf(" (%.80q)", bytes.TrimSpace(lines[line-1]))
	}
	what := oneLine(at.GetMessage())
	switch {
	case errors.As(err, &wrong):
		what = "the value is not a " + plain(wrong.DstType.Kind().String())
	case errors.As(err, &overflow):
		what = "the number is too large"
	}
	return fmt.Errorf("line %d%s: %s", line, text, what)
}

func oneLine(text string) string {
	return mulligan.ErrorText(errors.New(strings.Join(strings.Fields(text), " ")))
}

func plain(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "whole number"
	case strings.HasPrefix(kind, "float"):
		return "number"
	case kind == "string":
		return "single text or number"
	}
	return "mapping"
}
