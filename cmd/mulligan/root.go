package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mulligan-queue/mulligan/internal/config"
)

// The program's exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong flags, arguments, settings or config file
)

// A program is one call of the binary.
type program struct {
	in       io.Reader
	out, err io.Writer
	environ  []string // as os.Environ gives it

	asJSON bool
	cfg    config.Config
	log    zerolog.Logger
	begun  bool // flags, arguments and settings were right
}

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// run does what args say and returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	root := p.root()
	if c, _, err := root.Find(args); err == nil && c.Name() == "job" {
		args = joinWait(args)
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	_, _ = fmt.Fprintln(p.err, complaint("mulligan", err))
	var wrong *usageError
	if !p.begun || errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

// complaint is an error as one line, not longer than anybody reads.
func complaint(about string, err error) string {
	const longest = 2000
	text := strings.TrimPrefix(err.Error(), "mulligan: ") // a sentinel's, which would say it twice
	return about + ": " + shorten(strings.Join(strings.Fields(printable(text)), " "), longest)
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "mulligan",
		Short:         "A retry worker over NATS JetStream: every retry bounded, visible and deliberate",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return p.begin(cmd.Flags())
		},
	}
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	f := root.PersistentFlags()
	f.BoolVar(&p.asJSON, "json", false, "print JSON")
	setting(f, "config", "MULLIGAN_CONFIG", "the file of kinds")
	setting(f, "server", "NATS_URL", "the NATS server (default "+config.DefaultNATSURL+")")
	setting(f, "creds", "NATS_CREDS", "a NATS credentials file")
	setting(f, "log-level", "MULLIGAN_LOG_LEVEL", "debug, info, warn or error (default info)")
	setting(f, "log-format", "MULLIGAN_LOG_FORMAT", "console or json (default console on a terminal)")
	root.AddCommand(p.serveCommand(), p.workerCommand(), p.schedulerCommand(), p.provisionCommand(), p.doctorCommand(),
		p.kindsCommand(), p.publishCommand(), p.jobCommand(), p.deadCommand(), p.budgetCommand(), p.stormCommand(), p.benchCommand())
	return root
}

const settingVariable = "variable"

// setting adds a flag that goes over an environment variable.
func setting(f *pflag.FlagSet, name, variable, use string) {
	f.String(name, "", fmt.Sprintf("%s; also %s", use, variable))
	// It fails for a flag that does not exist only.
	_ = f.SetAnnotation(name, settingVariable, []string{variable})
}

// begin reads the settings. Flags are given to the environment, where the later
// value counts; the demo's come before it.
func (p *program) begin(flags *pflag.FlagSet) error {
	var environ []string
	if demo, err := flags.GetBool("demo"); err == nil && demo {
		environ = append(environ, demoSettings()...)
	}
	environ = append(environ, p.environ...)
	flags.Visit(func(f *pflag.Flag) {
		if v := f.Annotations[settingVariable]; len(v) == 1 {
			environ = append(environ, v[0]+"="+f.Value.String())
		}
	})
	var err error
	if p.cfg, err = config.Load(environ, ""); err != nil {
		return err
	}
	if p.log, err = p.logger(); err != nil {
		return err
	}
	p.begun = true
	return nil
}

// logger writes to standard error, for people if a terminal watches.
func (p *program) logger() (zerolog.Logger, error) {
	level, err := p.cfg.Settings.Level()
	if err != nil {
		return zerolog.Nop(), err
	}
	format := p.cfg.Settings.LogFormat
	w := p.err
	if format == "console" || format == "" && terminal(p.err) {
		w = zerolog.ConsoleWriter{Out: p.err, TimeFormat: "15:04:05.000", NoColor: !terminal(p.err) || os.Getenv("NO_COLOR") != ""}
	}
	return zerolog.New(zerolog.SyncWriter(w)).Level(level).With().Timestamp().Logger(), nil
}

// quiet is the log of a command that ends by itself: only what is wrong.
func (p *program) quiet() zerolog.Logger {
	return p.log.Level(max(p.log.GetLevel(), zerolog.WarnLevel))
}

// group is a command that only has others below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	var names []string
	for _, c := range below {
		names = append(names, c.Name())
	}
	g := &cobra.Command{Use: use, Short: short, RunE: func(*cobra.Command, []string) error {
		return usage("say which: mulligan %s %s", use, strings.Join(names, "|"))
	}}
	g.AddCommand(below...)
	return g
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
