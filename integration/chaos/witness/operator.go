package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// An OperatorConfig is what the operator of the run needs to know.
type OperatorConfig struct {
	Seed    uint64
	Servers []string
	Program string // path of the mulligan binary
	Log     string // path
}

// What an operator does with a letter.
const (
	Replay         = "replay"
	ResolveDone    = "resolve --done"     // its effect happened
	ResolveNotDone = "resolve --not-done" // accepts that it may happen twice
	Discard        = "discard"            // deletes the letter
)

// Operated is the operator's line about one letter: first that it is about to do
// it, then the answer. Without an answer nobody knows whether it was done.
type Operated struct {
	What   string          `json:"what"`
	N      int             `json:"n"`
	Kind   string          `json:"kind"`
	ID     string          `json:"id"`
	Seq    uint64          `json:"seq"` // of the letter
	Reason mulligan.Reason `json:"reason"`
	// Answer is Done, Failed or Unknown; empty before.
	Answer string `json:"answer,omitempty"`
	Said   string `json:"said,omitempty"`
}

// The answers.
const (
	OperatorDone    = "done"
	OperatorFailed  = "refused" // the program said so by its exit code
	OperatorUnknown = "unknown" // it did not end by itself
)

const (
	operatorEvery = 1500 * time.Millisecond
	operatorWaits = 15 * time.Second // for one command
)

type operator struct {
	cfg OperatorConfig
	log *journal
	js  jetstream.JetStream
}

// Operator now and then replays, resolves or discards a dead letter, until ctx
// ends.
func Operator(ctx context.Context, cfg OperatorConfig) error {
	log, past, err := openJournal("operator", cfg.Log)
	if err != nil {
		return err
	}
	defer log.close()
	nc, err := dial(cfg.Servers)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	o := &operator{cfg: cfg, log: log, js: js}
	for n := len(past); pause(ctx, operatorEvery); n++ {
		if err := o.round(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// AtWork reports whether an operator, by its log, has begun something and knows
// no answer yet.
func AtWork(path string) bool {
	lines, _, err := readLines(path)
	if err != nil || len(lines) == 0 {
		return false
	}
	last := lines[len(lines)-1].Operated
	return last != nil && last.Answer == ""
}

// letterLine is one of what `dead ls --json` prints.
type letterLine struct {
	Kind   string
	ID     string
	Reason mulligan.Reason
	Seq    uint64
}

// round looks at the letters and does something about one of them, maybe. Only
// the log can fail it.
func (o *operator) round(ctx context.Context, n int) error {
	out, answer := o.program(ctx, "dead", "ls", "--limit", "200", "--json")
	var letters []letterLine
	if answer != OperatorDone || json.Unmarshal(out, &letters) != nil {
		return nil // the server is away; there will be another round
	}
	letters = slices.DeleteFunc(letters, func(l letterLine) bool { return l.Kind == Odd })
	if len(letters) == 0 {
		return nil
	}
	r := rand.New(chance(o.cfg.Seed, "operator", n))
	l := letters[r.IntN(len(letters))]
	did := Operated{N: n, Kind: l.Kind, ID: l.ID, Seq: l.Seq, Reason: l.Reason, What: choose(l.Reason, r.IntN(10))}
	if _, err := o.log.write(Line{Operated: &did}); err != nil {
		return err
	}
	did.Said, did.Answer = o.carryOut(ctx, did)
	_, err := o.log.write(Line{Operated: &did})
	return err
}

// choose is what to do with a letter, by a die with ten sides. A conflict is
// never replayed; a doubt is a person's to decide.
func choose(reason mulligan.Reason, die int) string {
	switch {
	case die == 0 || reason == mulligan.KeyConflict:
		return Discard
	case reason == mulligan.InDoubt && die < 4:
		return ResolveDone
	case reason == mulligan.InDoubt && die < 7:
		return ResolveNotDone
	}
	return Replay // a doubt too, which has to be refused
}

func (o *operator) carryOut(ctx context.Context, did Operated) (said, answer string) {
	var out []byte
	switch did.What {
	case Discard:
		return o.discard(ctx, did.Seq)
	case Replay:
		out, answer = o.program(ctx, "dead", "replay", did.Kind, did.ID, "--json")
	default:
		out, answer = o.program(ctx, append([]string{"dead"}, append(strings.Fields(did.What), did.Kind, did.ID, "--json")...)...)
	}
	return string(bytes.TrimSpace(out)), answer
}

// discard is what an operator does with the nats CLI.
func (o *operator) discard(ctx context.Context, seq uint64) (said, answer string) {
	ctx, cancel := context.WithTimeout(ctx, operatorWaits)
	defer cancel()
	dead, err := o.js.Stream(ctx, mulligan.Topology{}.DeadStream())
	if err == nil {
		err = dead.DeleteMsg(ctx, seq)
	}
	var api *jetstream.APIError
	switch {
	case err == nil:
		return "", OperatorDone
	case errors.As(err, &api), errors.Is(err, jetstream.ErrMsgNotFound):
		return err.Error(), OperatorFailed
	}
	return err.Error(), OperatorUnknown
}

// program runs a command. The exit codes of errors may follow work that was done
// in part, so only a program that says it did nothing is believed.
func (o *operator) program(ctx context.Context, args ...string) (out []byte, answer string) {
	ctx, cancel := context.WithTimeout(ctx, operatorWaits)
	defer cancel()
	c := exec.CommandContext(ctx, o.cfg.Program, append(args, "--server", strings.Join(o.cfg.Servers, ","))...)
	c.Dir, c.Env = os.TempDir(), append(os.Environ(), "MULLIGAN_LOG_FORMAT=json")
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err == nil {
		return out, OperatorDone
	}
	said.WriteString(fmt.Sprint(" ", err))
	for _, no := range []string{"not replayable", "queued already", "no dead letter", "effect happened", "resolve it with"} {
		if strings.Contains(said.String(), no) {
			return said.Bytes(), OperatorFailed
		}
	}
	return said.Bytes(), OperatorUnknown
}
