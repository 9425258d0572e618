package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// downstreamYAML is a downstream as it is written.
type downstreamYAML struct {
	Concurrency whole    `yaml:"concurrency"`
	Ratio       *float64 `yaml:"ratio"`
	Cap         *float64 `yaml:"cap"`
	Floor       *float64 `yaml:"floor"`
	Capacity    *float64 `yaml:"capacity"`
	Peak        *float64 `yaml:"peak"`
}

// readDownstreams reads what is set of each downstream. Its kinds are read
// already.
func (f *File) readDownstreams(nodes map[string]ast.Node, source []byte) error {
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		if all := f.downstreams(); !slices.Contains(all, name) {
			return fmt.Errorf("downstream %.80q: no kind of the file belongs to it; they belong to %.400s", name, strings.Join(all, ", "))
		}
		y := downstreamYAML{}
		if err := decode(nodes[name], &y, source); err != nil {
			return fmt.Errorf("downstream %s: %w", name, err)
		}
		d, err := y.downstream(f.Downstreams[name].Concurrency)
		if err != nil {
			return fmt.Errorf("downstream %s: %w", name, err)
		}
		f.Downstreams[name] = d
	}
	return nil
}

func (f *File) downstreams() (names []string) {
	for _, k := range f.Kinds {
		names = append(names, k.Downstream)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// downstream is what is set; its kinds may have set the concurrency.
func (y *downstreamYAML) downstream(concurrency int) (d consumer.Downstream, err error) {
	switch n := y.Concurrency.n; {
	case y.Concurrency.zero():
		return d, fmt.Errorf("concurrency is 0; leave it out for the default of %d", budget.DefaultSlots)
	case n != 0 && concurrency != 0 && n != concurrency:
		return d, fmt.Errorf("concurrency is %d here and %d as the http.concurrency of its kinds; make them one", n, concurrency)
	case n != 0:
		concurrency = n
	}
	d.Concurrency = concurrency
	for _, field := range []struct {
		name  string
		given *float64
		to    *float64
	}{{"ratio", y.Ratio, &d.Ratio}, {"cap", y.Cap, &d.Cap}, {"floor", y.Floor, &d.Floor}, {"capacity", y.Capacity, &d.Capacity}, {"peak", y.Peak, &d.Peak}} {
		if field.given == nil {
			continue
		}
		if *field.given == 0 {
			return d, fmt.Errorf("%s is 0; leave it out for the default", field.name)
		}
		*field.to = *field.given
	}
	return d, d.Validate()
}
