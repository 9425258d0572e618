package config

import (
	"errors"
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// kindYAML is a kind as it is written. Its policy is a name or a mapping.
type kindYAML struct {
	Effect      string    `yaml:"effect"`
	Downstream  string    `yaml:"downstream"`
	KeyTTL      string    `yaml:"key_ttl"`
	KeepResults bool      `yaml:"keep_results"`
	MaxResult   string    `yaml:"max_result"`
	HTTP        *httpYAML `yaml:"http"`
	Policy      ast.Node  `yaml:"policy"`
}

type httpYAML struct {
	URL         string            `yaml:"url"`
	Timeout     string            `yaml:"timeout"`
	Concurrency whole             `yaml:"concurrency"`
	Headers     map[string]string `yaml:"headers"`

	timeout time.Duration
}

type policyYAML struct {
	Attempts   whole  `yaml:"attempts"`
	Total      string `yaml:"total"`
	FirstDelay string `yaml:"first_delay"`
	MaxDelay   string `yaml:"max_delay"`
	Timeout    string `yaml:"timeout"`
}

// kind returns the declaration, normal. Without a downstream of its own it
// belongs to its target's host.
func (y *kindYAML) kind(name string, source []byte) (mulligan.Kind, error) {
	k := mulligan.Kind{Name: name, Effect: mulligan.Effect(y.Effect), Downstream: y.Downstream, KeepResults: y.KeepResults}
	var err error
	if k.KeyTTL, err = (span{"key_ttl", y.KeyTTL, fmt.Sprintf("the default of %v", mulligan.DefaultKeyTTL)}).read(); err != nil {
		return k, fmt.Errorf("kind %s: %w", name, err)
	}
	if k.MaxResult, err = size("max_result", y.MaxResult); err != nil {
		return k, fmt.Errorf("kind %s: %w", name, err)
	}
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
	if y.timeout, err = (span{"http.timeout", y.Timeout, "the default of 10s"}).read(); err != nil {
		return err
	}
	if y.URL == "" {
		return errors.New("http has no url; say where to post, such as http://127.0.0.1:9000/send")
	}
	switch n := y.Concurrency.n; {
	case y.Concurrency.zero():
		return fmt.Errorf("http.concurrency is 0; leave it out for the default of %d", budget.DefaultSlots)
	case n < 0 || n > maxConcurrency:
		return fmt.Errorf("http.concurrency %d is not between 1 and %d", n, maxConcurrency)
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
	return y.policy()
}

func (y *policyYAML) policy() (mulligan.Policy, error) {
	d := mulligan.DefaultPolicy()
	if y.Attempts.zero() {
		return d, fmt.Errorf("attempts is 0; leave it out for the default of %d, or write 1 for no retry", d.Attempts)
	}
	p := mulligan.Policy{Attempts: y.Attempts.n}
	otherwise := func(d time.Duration) string { return fmt.Sprintf("the default of %v", d) }
	for _, f := range []struct {
		span
		to *time.Duration
	}{
		{span{"total", y.Total, otherwise(d.Total)}, &p.Total},
		{span{"first_delay", y.FirstDelay, otherwise(d.FirstDelay)}, &p.FirstDelay},
		{span{"max_delay", y.MaxDelay, otherwise(d.MaxDelay)}, &p.MaxDelay},
		{span{"timeout", y.Timeout, "http.timeout, or else the total"}, &p.Timeout},
	} {
		d, err := f.read()
		if err != nil {
			return p, err
		}
		*f.to = d
	}
	return p, nil
}
