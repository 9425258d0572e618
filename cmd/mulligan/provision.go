package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
)

// provisioned is what there is after provisioning.
type provisioned struct {
	Streams     []string `json:"streams"`
	Buckets     []string `json:"buckets"`
	Kinds       []string `json:"kinds"`
	Downstreams []string `json:"downstreams"`
}

func (p *program) provisionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "provision",
		Short: "Create the streams and buckets, and declare the kinds of the config file",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), commandWait)
			defer cancel()
			l, err := p.connect("provision")
			if err != nil {
				return err
			}
			defer l.nc.Close()
			done, err := p.provision(ctx, l)
			if err != nil {
				return err
			}
			return p.showProvisioned(done)
		},
	}
}

// provision creates what a topology needs, and the consumers of the config
// file's kinds. It may be repeated.
func (p *program) provision(ctx context.Context, l *link) (provisioned, error) {
	t := l.topology
	done := provisioned{
		Streams: []string{t.JobsStream(), t.RetriesStream(), t.DeadStream(), t.EventsStream()},
		Buckets: []string{t.LedgerBucket(), t.BudgetBucket(), t.KindsBucket()},
		Kinds:   []string{}, Downstreams: []string{},
	}
	if err := t.Ensure(ctx, l.js); err != nil {
		return done, err
	}
	kinds := p.cfg.File.Kinds
	differed, err := t.Declare(ctx, l.js, kinds)
	if err != nil {
		return done, err
	}
	for _, k := range differed {
		p.log.Warn().Str("kind", k.Name).Msg("it was declared differently before; the config file's declaration holds now")
	}
	for _, k := range kinds {
		done.Kinds = append(done.Kinds, k.Name)
		if !slices.Contains(done.Downstreams, k.Downstream) {
			done.Downstreams = append(done.Downstreams, k.Downstream)
		}
	}
	// A kind that has moved leaves the consumer of where it was, too.
	return done, t.EnsureConsumers(ctx, l.js, withFormer(done.Downstreams, differed))
}

func withFormer(downstreams []string, differed []mulligan.Kind) []string {
	all := slices.Clone(downstreams)
	for _, k := range differed {
		if !slices.Contains(all, k.Downstream) {
			all = append(all, k.Downstream)
		}
	}
	return all
}

func (p *program) showProvisioned(done provisioned) error {
	if p.asJSON {
		return p.printJSON(done)
	}
	p.printf("streams %s and buckets %s are there\n", strings.Join(done.Streams, ", "), strings.Join(done.Buckets, ", "))
	if len(done.Kinds) == 0 {
		p.printf("no kinds: name a file with --config to declare its kinds\n")
		return nil
	}
	p.printf("kinds %s are declared, on the downstreams %s\n", strings.Join(done.Kinds, ", "), strings.Join(done.Downstreams, ", "))
	return nil
}
