package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
)

// publishFlags are those of one job, or the file of many.
type publishFlags struct {
	id, user, task, deadline, notBefore, contentType string
	file                                             string
	taskRetries                                      int
}

const contentJSON = "application/json"

func (p *program) publishCommand() *cobra.Command {
	var f publishFlags
	c := &cobra.Command{
		Use:   "publish KIND [PAYLOAD|-] | publish --file jobs.jsonl",
		Short: "Publish one job, or one for each line of a file",
		Long: "Publish one job; its payload is the argument, or standard input if that is -.\n\n" +
			"With --file, publish one job for each line, such as\n" +
			`  {"kind":"email.send","id":"order-42","user":"ada","task":"t1","payload":{"to":"ada@example.org"},"deadline":"1h"}` + "\n" +
			"The payload is any JSON, and not_before and content_type may be there too. Good lines are published, bad ones reported.",
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("file") {
				if err := onlyFile(cmd, args, f.file); err != nil {
					return err
				}
				return p.publishFile(cmd.Context(), f.file)
			}
			if cmd.Flags().Changed("id") && f.id == "" {
				return usage("--id is empty; a pure kind may go without")
			}
			return p.publishOne(cmd.Context(), f, args)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.id, "id", "", "the idempotency key; a pure kind may go without")
	flags.StringVar(&f.user, "user", "", "whose retry budget it uses")
	flags.StringVar(&f.task, "task", "", "what it belongs to, with a retry budget of its own")
	flags.IntVar(&f.taskRetries, "task-retries", 0, fmt.Sprintf("how many retries the task may have, over all its jobs (default %d)", mulligan.DefaultTaskRetries))
	flags.StringVar(&f.deadline, "deadline", "", "no attempt starts later: a time such as 2006-01-02T15:04:05Z, or a duration from now (default 24h)")
	flags.StringVar(&f.notBefore, "not-before", "", "no attempt starts earlier: a time, or a duration from now")
	flags.StringVar(&f.contentType, "content-type", "", "of the payload (default "+contentJSON+" if it is JSON)")
	flags.StringVar(&f.file, "file", "", "a file with one job in JSON on each line; - is standard input")
	return c
}

func onlyFile(cmd *cobra.Command, args []string, file string) error {
	if len(args) > 0 {
		return usage("--file takes kind and payload from its lines; leave out %q", args[0])
	}
	if file == "" {
		return usage("--file has no name; - is standard input")
	}
	for _, name := range []string{"id", "user", "task", "task-retries", "deadline", "not-before", "content-type"} {
		if cmd.Flags().Changed(name) {
			return usage("--file takes --%s from its lines; leave it out", name)
		}
	}
	return nil
}

// publishedJob is what became of one job.
type publishedJob struct {
	Line       int             `json:"line,omitempty"` // of the file
	Kind       string          `json:"kind"`
	ID         string          `json:"id"`
	Seq        uint64          `json:"seq"`
	Duplicate  bool            `json:"duplicate"`
	Error      string          `json:"error"`
	Unverified bool            `json:"unverified,omitempty"`
	State      mulligan.State  `json:"state,omitempty"` // done, spent or dead, if the key had ended before
	Reason     mulligan.Reason `json:"reason,omitempty"`
	Result     json.RawMessage `json:"result,omitempty"`
}

func newPublishedJob(line int, o mulligan.Outcome) publishedJob {
	r := o.Receipt
	v := publishedJob{Line: line, Kind: r.Kind, ID: r.ID, Seq: r.Seq, Duplicate: r.Duplicate, Unverified: r.Unverified, State: r.State, Reason: r.Reason}
	if r.Result != nil {
		v.Result, _ = api.Value(r.Result.Data)
	}
	if o.Err != nil {
		v.Error = o.Err.Error()
	}
	return v
}

func (p *program) publishOne(ctx context.Context, f publishFlags, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	job, err := p.oneJob(f, args)
	if err != nil {
		return err
	}
	l, err := p.connect("publish")
	if err != nil {
		return err
	}
	defer l.nc.Close()
	kinds, err := p.kinds(ctx, l)
	if err != nil {
		return err
	}
	pub := mulligan.Publisher{Conn: l.nc, Kinds: kinds, Topology: l.topology}
	var o mulligan.Outcome
	o.Receipt, o.Err = pub.Publish(ctx, job)
	o.Err = p.unknown(o.Err, job.Kind, kinds)
	v := newPublishedJob(0, o)
	if p.asJSON {
		if err := p.printLine(v); err != nil {
			return err
		}
	}
	switch ended := o.Receipt.State; {
	case wrongArgument(o.Err):
		return &usageError{o.Err}
	case o.Err != nil:
		return o.Err
	case ended == mulligan.Spent || ended == mulligan.Dead:
		return fmt.Errorf("%s %s is %s", v.Kind, quote(v.ID), deadAlready(o.Receipt))
	case !p.asJSON:
		p.showPublished(v)
	}
	return nil
}

// wrongArgument reports whether an error is about what was asked for, and not
// about what the server has.
func wrongArgument(err error) bool {
	return errors.Is(err, mulligan.ErrBadID) || errors.Is(err, mulligan.ErrNoKey) || errors.Is(err, mulligan.ErrBadJob)
}

// deadAlready says of a key that is spent or dead why, and how to go on.
func deadAlready(r mulligan.Receipt) string {
	how := fmt.Sprintf("run it with %s, which refuses where that may repeat its effect", hint(r.Kind, r.ID, "dead", "replay"))
	if r.Reason == mulligan.InDoubt {
		how = resolveHint(r.Kind, r.ID)
	}
	return fmt.Sprintf("%s (%s); %s", r.State, r.Reason, how)
}

// oneJob makes the job of the arguments.
func (p *program) oneJob(f publishFlags, args []string) (mulligan.Job, error) {
	job := mulligan.Job{ID: f.id, User: f.user, Task: f.task, TaskRetries: f.taskRetries, ContentType: f.contentType}
	if len(args) == 0 {
		return job, usage("say what to publish: mulligan publish KIND [PAYLOAD|-], or --file jobs.jsonl")
	}
	job.Kind = args[0]
	if err := mulligan.ValidKindName(job.Kind); err != nil {
		return job, &usageError{err}
	}
	if _, err := mulligan.ParseToken(mulligan.Token(job.ID)); job.ID != "" && err != nil {
		return job, usage("--id: %w", err)
	}
	var err error
	now := time.Now()
	if job.Deadline, err = when(f.deadline, now); err != nil {
		return job, usage("--deadline %w", err)
	}
	if f.deadline != "" && !job.Deadline.After(now) {
		return job, usage("--deadline %s is in the past", f.deadline)
	}
	if job.NotBefore, err = when(f.notBefore, now); err != nil {
		return job, usage("--not-before %w", err)
	}
	switch {
	case len(args) == 2 && args[1] == "-":
		if job.Payload, err = io.ReadAll(p.in); err != nil {
			return job, fmt.Errorf("read the payload from standard input: %w", err)
		}
	case len(args) == 2:
		job.Payload = []byte(args[1])
	}
	if job.ContentType == "" && json.Valid(job.Payload) {
		job.ContentType = contentJSON
	}
	return job, nil
}

// when reads a time, or a duration from now; nothing is the zero time.
func when(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%.40q is neither a time such as 2006-01-02T15:04:05Z nor a duration such as 90m", s)
	}
	if d < 0 {
		return time.Time{}, fmt.Errorf("%s is in the past", s)
	}
	return now.Add(d), nil
}

// unknown says which kinds there are instead of one that there is not.
func (p *program) unknown(err error, kind string, kinds []mulligan.Kind) error {
	if !errors.Is(err, mulligan.ErrUnknownKind) {
		return err
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	known := strings.Join(names, ", ")
	if known == "" {
		known = "none"
	}
	return fmt.Errorf("%w: %.140q (there is: %.400s); name a file that has it with --config, or start a worker that declares it", mulligan.ErrUnknownKind, kind, known)
}

func (p *program) showPublished(v publishedJob) {
	id := printable(v.ID)
	switch {
	case v.State == mulligan.Done:
		p.printf("%s %s is done already", v.Kind, id)
		if len(v.Result) > 0 {
			p.printf(", with the result %s", printable(string(v.Result)))
		}
		p.printf("\n")
	case v.Unverified:
		p.printf("%s %s was published before; whether with this payload cannot be told any more\n", v.Kind, id)
	case v.Duplicate:
		p.printf("%s %s was published before and runs once\n", v.Kind, id)
	default:
		p.printf("published %s %s (%d)\n", v.Kind, id, v.Seq)
	}
}
