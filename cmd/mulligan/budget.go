package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/mulligan-queue/mulligan/budget"
)

// userBudget and taskBudget are what the bucket holds of one user or task.
type userBudget struct {
	User string `json:"user"`
	budget.UserState
	Reset bool `json:"reset,omitempty"`
}

type taskBudget struct {
	Task string `json:"task"`
	budget.TaskState
	Reset bool `json:"reset,omitempty"`
}

func (p *program) budgetCommand() *cobra.Command {
	var reset bool
	one := func(use, short string, do func(ctx context.Context, b *budget.Books, id string, reset bool) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usage("the name is empty")
			}
			return p.withBudgets(cmd.Context(), func(ctx context.Context, b *budget.Books) error { return do(ctx, b, args[0], reset) })
		}}
		c.Flags().BoolVar(&reset, "reset", false, "forget what was used: it may be used again")
		return c
	}
	return group("budget", "Show and reset the retry budgets of users and tasks",
		one("user USER", "Show a user's retries: granted, reserved for later, denied", p.userBudget),
		one("task TASK", "Show a task's retries: used and denied", p.taskBudget))
}

func (p *program) withBudgets(ctx context.Context, do func(context.Context, *budget.Books) error) error {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	l, err := p.connect("budget")
	if err != nil {
		return err
	}
	defer l.close()
	b, err := budget.OpenBooks(ctx, l.js, l.topology)
	if err != nil {
		return err
	}
	return do(ctx, b)
}

func (p *program) userBudget(ctx context.Context, b *budget.Books, user string, reset bool) error {
	v := userBudget{User: user, Reset: reset}
	var err error
	if v.UserState, err = b.User(ctx, user); err != nil && !reset {
		return err
	}
	if reset {
		if err := b.ResetUser(ctx, user); err != nil {
			return err
		}
	}
	if p.asJSON {
		return p.printJSON(v)
	}
	p.printf("user %s: %d retries granted at once, %d reserved for later, %d denied\n", printable(user), v.Granted, v.Reserved, v.Denied)
	if wait := time.Until(v.Whole); wait > 0 && !reset {
		p.printf("the whole burst is free again in %v, at %s\n", wait.Round(time.Second), local(v.Whole))
	}
	p.saidReset(reset)
	return nil
}

func (p *program) taskBudget(ctx context.Context, b *budget.Books, task string, reset bool) error {
	v := taskBudget{Task: task, Reset: reset}
	var err error
	if v.TaskState, err = b.Task(ctx, task); err != nil && !reset {
		return err
	}
	if reset {
		if err := b.ResetTask(ctx, task); err != nil {
			return err
		}
	}
	if p.asJSON {
		return p.printJSON(v)
	}
	p.printf("task %s: %d retries used, %d denied\n", printable(task), v.Used, v.Denied)
	p.saidReset(reset)
	return nil
}

func (p *program) saidReset(reset bool) {
	if reset {
		p.printf("this is forgotten now; jobs that are dead stay so until they are replayed\n")
	}
}
