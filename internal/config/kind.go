package config

import (
	"errors"
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

// kindYAML is a kind as it is written. Its policy is a name or a mapping.
type kindYAML struct {
	Effect     string    `yaml:"effect"`
	Downstream string    `yaml:"downstream"`
	HTTP       *httpYAML `yaml:"http"`
	Policy     ast.Node  `yaml:"policy"`
}

type httpYAML struct {
	URL         string            `yaml:"url"`
	Timeout     string            `yaml:"timeout"`
	Concurrency int               `yaml:"concurrency"`
	Headers     map[string]string `yaml:"headers"`

	timeout time.Duration
}

type policyYAML struct {
	Attempts   int    `yaml:"attempts"`
	Total      string `yaml:"total"`
	FirstDelay string `yaml:"first_delay"`
	MaxDelay   string `yaml:"max_delay"`
	Timeout    string `yaml:"timeout"`
}

// kind returns the declaration, normal. Without a downstream of its own it
// belongs to its target's host.
func (y *kindYAML) kind(name string, source []byte) (mulligan.Kind, error) {
	k := mulligan.Kind{Name: name, Effect: mulligan.Effect(y.Effect), Downstream: y.Downstream}
	policy, err := readPolicy(y.Policy, source)
	if err != nil {
		return k, fmt.Errorf("kind %s: policy: %w", name, err)
	}
	k.Policy = policy
	if y.HTTP != nil {
		if err := y.HTTP.validate(); err != nil {
			return k, fmt.Errorf("kind %s: %w", name, err)
		}
		if k.Downstream == "" {
			k.Downstream = y.HTTP.target().Downstream()
		}
		if k.Policy.Timeout == 0 {
			k.Policy.Timeout = y.HTTP.timeout
		}
	}
	return k.Normal()
}

const maxConcurrency = 10_000

// validate also reads the timeout.
func (y *httpYAML) validate() (err error) {
	if y.timeout, err = duration("http.timeout", y.Timeout); err != nil {
		return err
	}
	if y.URL == "" {
		return errors.New("http has no url; say where to post, such as http://127.0.0.1:9000/send")
	}
	if y.Concurrency < 0 || y.Concurrency > maxConcurrency {
		return fmt.Errorf("http.concurrency %d is not between 1 and %d", y.Concurrency, maxConcurrency)
	}
	return y.target().Validate()
}

func (y *httpYAML) target() *consumer.HTTPTarget {
	return &consumer.HTTPTarget{URL: y.URL, Timeout: y.timeout, Headers: y.Headers}
}

// readPolicy reads a policy's name or its fields; none is the default policy.
func readPolicy(n ast.Node, source []byte) (mulligan.Policy, error) {
	if s, ok := n.(*ast.StringNode); ok {
		return mulligan.NamedPolicy(s.Value)
	}
	var y policyYAML
	if err := decode(n, &y, source); err != nil {
		return mulligan.Policy{}, err
	}
	p := mulligan.Policy{Attempts: y.Attempts}
	for _, f := range []struct {
		key, text string
		to        *time.Duration
	}{
		{"total", y.Total, &p.Total}, {"first_delay", y.FirstDelay, &p.FirstDelay},
		{"max_delay", y.MaxDelay, &p.MaxDelay}, {"timeout", y.Timeout, &p.Timeout},
	} {
		d, err := duration(f.key, f.text)
		if err != nil {
			return p, err
		}
		*f.to = d
	}
	return p, nil
}
