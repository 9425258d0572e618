package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// deadJob is a dead letter in a list.
type deadJob struct {
	Kind      string          `json:"kind"`
	ID        string          `json:"id"`
	Reason    mulligan.Reason `json:"reason"`
	ErrorType string          `json:"error_type"`
	Error     string          `json:"error"`
	Attempts  int             `json:"attempts"`
	User      string          `json:"user"`
	Task      string          `json:"task"`
	BuriedAt  time.Time       `json:"buried_at"`
	Seq       uint64          `json:"seq"` // in the stream of letters
}

func (p *program) deadCommand() *cobra.Command {
	var q scheduler.Query
	var reason string
	ls := &cobra.Command{
		Use:   "ls",
		Short: "List dead letters, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Reason = mulligan.Reason(reason)
			if err := checkQuery(q); err != nil {
				return err
			}
			return p.withDead(cmd.Context(), func(ctx context.Context, s *scheduler.Scheduler) error { return p.deadList(ctx, s, q) })
		},
	}
	ls.Flags().StringVar(&q.Kind, "kind", "", "only of this kind")
	ls.Flags().StringVar(&reason, "reason", "", "only those that died for this reason")
	ls.Flags().IntVar(&q.Limit, "limit", 100, "how many at most")
	replay := p.oneLetter("replay KIND ID", "Publish a dead job again, under its key and with fresh attempts", p.deadReplay)
	return group("dead", "List, show, replay and resolve dead letters", ls, p.deadShowCommand(), replay, p.deadResolveCommand())
}

// oneLetter is a command about the letter of a key.
func (p *program) oneLetter(use, short string, do func(ctx context.Context, s *scheduler.Scheduler, kind, id string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		if err := mulligan.ValidKindName(args[0]); err != nil {
			return &usageError{err}
		}
		return p.withDead(cmd.Context(), func(ctx context.Context, s *scheduler.Scheduler) error { return do(ctx, s, args[0], args[1]) })
	}}
}

func checkQuery(q scheduler.Query) error {
	if q.Limit < 1 {
		return usage("--limit %d is not at least 1", q.Limit)
	}
	if q.Reason != "" && !q.Reason.Valid() {
		return usage("--reason %q is not one of %v", q.Reason, mulligan.SpentReasons())
	}
	if q.Kind != "" {
		if err := mulligan.ValidKindName(q.Kind); err != nil {
			return usage("--kind: %w", err)
		}
	}
	return nil
}

func (p *program) withDead(ctx context.Context, do func(context.Context, *scheduler.Scheduler) error) error {
	const patience = 2 * time.Minute // a long list takes its time
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l, err := p.connect("dead")
	if err != nil {
		return err
	}
	defer l.close()
	// A scheduler would create what is missing; who only looks must not.
	if _, err := l.js.Stream(ctx, l.topology.DeadStream()); errors.Is(err, jetstream.ErrStreamNotFound) {
		return mulligan.ErrNoTopology
	}
	return do(ctx, &scheduler.Scheduler{Conn: l.nc, Topology: l.topology, Log: p.quiet()})
}

func (p *program) deadList(ctx context.Context, s *scheduler.Scheduler, q scheduler.Query) error {
	letters, err := s.Letters(ctx, q)
	if err != nil {
		return err
	}
	list := []deadJob{}
	for i := range letters {
		list = append(list, newDeadJob(&letters[i]))
	}
	if p.asJSON {
		return p.printJSON(list)
	}
	if len(list) == 0 {
		p.printf("no dead letters\n")
		return nil
	}
	var rows []table.Row
	for _, d := range list {
		rows = append(rows, table.Row{d.Seq, local(d.BuriedAt), d.Kind, d.ID, string(d.Reason), d.Attempts, d.User, d.ErrorType, d.Error})
	}
	p.printTable(table.Row{"seq", "buried", "kind", "id", "reason", "attempts", "user", "type", "error"}, rows)
	return nil
}

func newDeadJob(l *mulligan.Letter) deadJob {
	return deadJob{Kind: l.Kind, ID: l.ID, Reason: l.Reason, ErrorType: l.ErrorType, Error: l.Error, Attempts: l.Attempts,
		User: l.User, Task: l.Task, BuriedAt: l.BuriedAt, Seq: l.Seq}
}

// replayedView is what a replay did.
type replayedView struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Seq  uint64 `json:"seq"`
	// Done: the key had succeeded already; only the letter went.
	Done bool `json:"done"`
}

func (p *program) deadReplay(ctx context.Context, s *scheduler.Scheduler, kind, id string) error {
	r, err := s.Replay(ctx, kind, id)
	if err != nil {
		return deadHelp(err, kind, id)
	}
	if p.asJSON {
		return p.printJSON(replayedView{Kind: kind, ID: id, Seq: r.Seq, Done: r.Done})
	}
	if r.Done {
		p.printf("%s %s was done already: its result stands, and the letter is gone\n", kind, printable(id))
		return nil
	}
	p.printf("%s %s is queued again, see %s\n", kind, printable(id), hint(kind, id, "job"))
	return nil
}

// deadHelp says what can be done about an error.
func deadHelp(err error, kind, id string) error {
	switch {
	case errors.Is(err, mulligan.ErrNotFound):
		return fmt.Errorf("%w; see `mulligan dead ls` for what there is", err)
	case errors.Is(err, mulligan.ErrInDoubt), errors.Is(err, dedupe.ErrUnreadable):
		return fmt.Errorf("%w: %s", err, resolveHint(kind, id))
	}
	return err
}
