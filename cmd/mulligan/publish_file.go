package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mulligan-queue/mulligan"
)

const (
	batchJobs   = 1000
	batchBytes  = 16 << 20 // of lines, so that large payloads do not fill the memory
	lineExtra   = 64 << 10 // of a line beside its payload
	longFile    = 4 << 20  // bytes from which a progress bar is worth it
	lineBuffers = 64 << 10
)

// A filing publishes the lines of one file.
type filing struct {
	*program
	pub   *mulligan.Publisher
	kinds []mulligan.Kind
	in    lineReader
	bar   *bar
	begun time.Time

	jobs  []mulligan.Job // of the batch
	lines []fileLine     // of the batch, those without a job too
	bytes int            // of its lines

	stored, duplicate, ended, bad int
}

// A fileLine is a line whose fate is known if it is bad, and otherwise becomes
// that of the batch's next job.
type fileLine struct {
	number int
	fate   mulligan.Outcome
}

func (p *program) publishFile(ctx context.Context, path string) error {
	in, size, err := p.open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	l, err := p.connect("publish")
	if err != nil {
		return err
	}
	defer l.nc.Close()
	ask, cancel := context.WithTimeout(ctx, commandWait)
	kinds, err := p.kinds(ask, l)
	cancel()
	if err != nil {
		return err
	}
	f := &filing{program: p, kinds: kinds, begun: time.Now(), bar: newBar(p.err, size),
		pub: &mulligan.Publisher{Conn: l.nc, Kinds: kinds, Topology: l.topology},
		in:  lineReader{in: bufio.NewReaderSize(in, lineBuffers), limit: int(l.nc.MaxPayload()) + lineExtra}}
	err = f.run(ctx)
	f.bar.stop(err == nil)
	if err == nil {
		err = f.summary()
	}
	return err
}

// open returns the file of jobs and its size; zero if that is not known.
func (p *program) open(path string) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(p.in), 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, usage("open the file of jobs: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("open the file of jobs: %w", err)
	}
	if info.IsDir() {
		_ = f.Close()
		return nil, 0, usage("open the file of jobs: %s is a directory", path)
	}
	return f, info.Size(), nil
}

// run publishes line by line. It ends early when the server takes nothing more.
func (f *filing) run(ctx context.Context) error {
	for {
		line, size, err := f.in.next()
		if errors.Is(err, io.EOF) {
			return f.flush(ctx)
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return errors.Join(f.flush(ctx), fmt.Errorf("read line %d: %w", f.in.line, err))
		}
		f.take(line, err)
		f.bytes += size
		if len(f.lines) >= batchJobs || f.bytes >= batchBytes {
			if err := f.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// take adds a line to the batch. An empty line is none.
func (f *filing) take(line []byte, err error) {
	var job mulligan.Job
	if err == nil {
		if len(line) == 0 {
			return
		}
		job, err = parseLine(line, time.Now())
	}
	l := fileLine{number: f.in.line}
	if err != nil {
		l.fate = mulligan.Outcome{Receipt: mulligan.Receipt{Kind: job.Kind, ID: job.ID}, Err: err}
	} else {
		f.jobs = append(f.jobs, job)
	}
	f.lines = append(f.lines, l)
}

// flush publishes the batch and reports what became of each line.
func (f *filing) flush(ctx context.Context) error {
	var stuck error
	fates := f.pub.PublishMany(ctx, f.jobs)
	for _, l := range f.lines {
		if l.fate.Err == nil {
			l.fate, fates = fates[0], fates[1:]
			l.fate.Err = f.unknown(l.fate.Err, l.fate.Receipt.Kind, f.kinds)
		}
		if hopeless(l.fate.Err) {
			stuck = l.fate.Err
		}
		if err := f.report(l.number, l.fate); err != nil {
			return err
		}
	}
	f.bar.add(f.bytes)
	f.jobs, f.lines, f.bytes = f.jobs[:0], f.lines[:0], 0
	if stuck == nil {
		stuck = ctx.Err()
	}
	if stuck != nil {
		return fmt.Errorf("stopped after line %d: %w; publish the file again when that is mended, IDs keep their jobs from running twice", f.in.line, stuck)
	}
	return nil
}

// hopeless is an error that the lines to come would meet, too.
func hopeless(err error) bool {
	return errors.Is(err, mulligan.ErrUnavailable) || errors.Is(err, mulligan.ErrNoTopology) ||
		errors.Is(err, mulligan.ErrStreamFull) || errors.Is(err, mulligan.ErrUnconfirmed)
}

// report counts what became of a line, and says so if it is bad.
func (f *filing) report(line int, o mulligan.Outcome) error {
	switch {
	case o.Err != nil:
		f.bad++
		f.bar.log(f.err, complaint(fmt.Sprintf("line %d", line), o.Err))
	case o.Receipt.Ended():
		f.ended++
	case o.Receipt.Duplicate:
		f.duplicate++
	default:
		f.stored++
	}
	if f.asJSON {
		return f.printLine(newPublishedJob(line, o))
	}
	return nil
}

func (f *filing) summary() error {
	if !f.asJSON {
		took := time.Since(f.begun)
		f.printf("published %d, duplicates %d, ended before %d, bad lines %d, in %v\n", f.stored, f.duplicate, f.ended, f.bad, took.Round(time.Millisecond))
	}
	if f.bad > 0 {
		return fmt.Errorf("lines not published: %d; mend them and publish the file again, IDs keep the others from running twice", f.bad)
	}
	return nil
}
