package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// letterView is all of a dead letter, and what is known of its job besides.
type letterView struct {
	deadJob
	Published       time.Time         `json:"published"`
	Deadline        time.Time         `json:"deadline"`
	Headers         nats.Header       `json:"headers,omitempty"`
	History         []api.AttemptView `json:"history,omitempty"`
	Payload         json.RawMessage   `json:"payload,omitempty"`
	PayloadEncoding string            `json:"payload_encoding,omitempty"` // json, text or base64
	Steps           []api.StepView    `json:"steps,omitempty"`
	// OpenStep began and has no known end; StartedAt is when it did, or else the
	// attempt that has none.
	OpenStep  string    `json:"open_step,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	// Doubt says why a replay is refused until a person resolves it.
	Doubt string `json:"doubt,omitempty"`
}

func (p *program) deadShowCommand() *cobra.Command {
	var seq uint64
	var c *cobra.Command
	find := func(ctx context.Context, s *scheduler.Scheduler, kind, id string) (mulligan.Letter, error) {
		if !c.Flags().Changed("seq") {
			return s.Letter(ctx, kind, id)
		}
		l, err := s.LetterAt(ctx, seq)
		if err == nil && (l.Kind != kind || l.ID != id) {
			err = fmt.Errorf("%w: letter %d is of %s %s", mulligan.ErrNotFound, seq, printable(l.Kind), quote(l.ID))
		}
		return l, err
	}
	c = p.oneLetter("show KIND ID", "Show a dead letter: headers, history, payload, and what is known of its effect",
		func(ctx context.Context, s *scheduler.Scheduler, kind, id string) error {
			l, err := find(ctx, s, kind, id)
			if err != nil {
				return deadHelp(err, kind, id)
			}
			return p.deadShow(ctx, s, l)
		})
	c.Flags().Uint64Var(&seq, "seq", 0, "exactly the letter that dead ls lists with this number: a key may have others beside its own")
	return c
}

func (p *program) deadShow(ctx context.Context, s *scheduler.Scheduler, l mulligan.Letter) error {
	known, err := s.Find(ctx, &l)
	if err != nil {
		return err
	}
	v := newLetterView(&l, known)
	if p.asJSON {
		return p.printJSON(v)
	}
	p.showLetter(v)
	return nil
}

func newLetterView(l *mulligan.Letter, known scheduler.Finding) letterView {
	v := letterView{deadJob: newDeadJob(l), Published: l.Published, Deadline: l.Deadline, Headers: l.Header, Doubt: known.Doubt}
	r := known.Record
	if r == nil {
		r = new(mulligan.Record)
	}
	view := api.View(mulligan.Status{Record: &mulligan.Record{Steps: r.Steps, History: l.History}})
	v.History, v.Steps = view.History, view.Steps
	if start := r.Open(); start != nil {
		v.StartedAt = start.At
	}
	if step := r.OpenStep(); step != nil {
		v.OpenStep, v.StartedAt = step.Name, step.Begun
	}
	v.Payload, v.PayloadEncoding = api.Value(l.Payload)
	return v
}

func (p *program) showLetter(v letterView) {
	p.showJob(api.JobView{Kind: v.Kind, ID: v.ID, State: mulligan.StatusDead, Reason: v.Reason, Attempts: v.Attempts, Error: v.Error, Steps: v.Steps, History: v.History})
	p.printf("\nletter %d, published %s, deadline %s, buried %s\n", v.Seq, local(v.Published), local(v.Deadline), local(v.BuriedAt))
	switch {
	case v.OpenStep != "":
		p.printf("its step %s began at %s and its end is not known\n", v.OpenStep, local(v.StartedAt))
	case !v.StartedAt.IsZero():
		p.printf("an attempt began at %s and its end is not known\n", local(v.StartedAt))
	}
	for name, values := range v.Headers {
		for _, value := range values {
			p.printf("%s: %s\n", printable(name), printable(value))
		}
	}
	p.printf("payload: %s\n", printable(string(v.Payload)))
	if v.Doubt != "" {
		p.printf("in doubt: %s\nresolve it: %s\n", v.Doubt, resolveHint(v.Kind, v.ID))
		if v.OpenStep != "" {
			p.printf("or, if the step's effect happened and the rest is to follow: %s\n", hint(v.Kind, v.ID, "dead", "resolve", "--step", v.OpenStep, "--done"))
		}
	}
}
