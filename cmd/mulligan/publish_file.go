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
	batchBytes  = 8 << 20  // of lines, of which there are two at most, so that large payloads do not fill the memory
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

	batch                         // that is read
	sent  batch                   // that is being published
	fates chan []mulligan.Outcome // of the jobs sent; nil if none are
	last  int                     // line of which it is known what became of it

	tally tally
}

// A batch is what is published together.
type batch struct {
	jobs  []mulligan.Job
	lines []fileLine // those without a job too
	bytes int
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
	f.summary()
	if err == nil {
		err = f.tally.err()
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

// A readLine is a line as it was read, or the error in its place.
type readLine struct {
	text   []byte
	size   int
	number int
	err    error
}

// read hands out the lines until their end, or until ctx is done. Nobody waits
// for it then: a read of standard input cannot be interrupted.
func (f *filing) read(ctx context.Context) <-chan readLine {
	lines := make(chan readLine)
	go func() {
		for {
			text, size, err := f.in.next()
			select {
			case lines <- readLine{text, size, f.in.line, err}:
			case <-ctx.Done():
				return
			}
			if err != nil && !errors.Is(err, errLineTooLong) {
				return
			}
		}
	}()
	return lines
}

// run publishes line by line, and reads while it publishes. It ends early when the
// server takes nothing more, or when ctx is done.
func (f *filing) run(ctx context.Context) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := f.read(within)
	for {
		var l readLine
		select {
		case l = <-lines:
		case fates := <-f.fates:
			if err := f.answered(ctx, fates); err != nil {
				return err
			}
			continue
		case <-ctx.Done():
			return f.finish(ctx)
		}
		if errors.Is(l.err, io.EOF) {
			return f.finish(ctx)
		}
		if l.err != nil && !errors.Is(l.err, errLineTooLong) {
			return errors.Join(f.finish(ctx), fmt.Errorf("read line %d: %w", l.number, l.err))
		}
		f.take(l)
		f.bytes += l.size
		if len(f.lines) >= batchJobs || f.bytes >= batchBytes {
			if err := f.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// take adds a line to the batch. An empty line is none.
func (f *filing) take(read readLine) {
	var job mulligan.Job
	err := read.err
	if err == nil {
		if len(read.text) == 0 {
			return
		}
		job, err = parseLine(read.text, time.Now())
	}
	l := fileLine{number: read.number}
	if err != nil {
		l.fate = mulligan.Outcome{Receipt: mulligan.Receipt{Kind: job.Kind, ID: job.ID}, Err: err}
	} else {
		f.jobs = append(f.jobs, job)
	}
	f.lines = append(f.lines, l)
}

// flush publishes the batch once it is known what became of the one before.
func (f *filing) flush(ctx context.Context) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return f.stopped(ctx.Err()) // not one of the batch was sent
	}
	fates := make(chan []mulligan.Outcome, 1)
	f.sent, f.fates, f.batch = f.batch, fates, batch{}
	jobs := f.sent.jobs
	go func() { fates <- f.pub.PublishMany(ctx, jobs) }()
	return nil
}

// finish publishes what is left, and waits for its end.
func (f *filing) finish(ctx context.Context) error {
	if err := f.flush(ctx); err != nil {
		return err
	}
	return f.await(ctx)
}

func (f *filing) await(ctx context.Context) error {
	if f.fates == nil {
		return nil
	}
	return f.answered(ctx, <-f.fates)
}

// answered reports what became of each line of the batch that was sent.
func (f *filing) answered(ctx context.Context, fates []mulligan.Outcome) error {
	f.fates = nil
	var trouble troubles
	for _, l := range f.sent.lines {
		if l.fate.Err == nil {
			l.fate, fates = fates[0], fates[1:]
			l.fate.Err = f.unknown(l.fate.Err, l.fate.Receipt.Kind, f.kinds)
		}
		if hopeless(l.fate.Err) {
			trouble.add(l.number, l.fate.Err)
		}
		if err := f.report(l.number, l.fate); err != nil {
			return err
		}
		f.last = l.number
	}
	f.bar.add(f.sent.bytes)
	for _, t := range trouble {
		f.bar.log(f.err, t.String())
	}
	switch {
	case ctx.Err() != nil:
		return f.stopped(ctx.Err())
	case len(trouble) > 0:
		return f.stopped(errors.New(trouble[0].cause))
	}
	return nil
}

func (f *filing) stopped(why error) error {
	return fmt.Errorf("stopped after line %d, with %d published: %w; publish the file again when that is mended, IDs keep their jobs from running twice", f.last, f.tally.stored, why)
}

// hopeless is an error that the lines to come would meet, too.
func hopeless(err error) bool {
	return errors.Is(err, mulligan.ErrUnavailable) || errors.Is(err, mulligan.ErrNoTopology) ||
		errors.Is(err, mulligan.ErrStreamFull) || errors.Is(err, mulligan.ErrUnconfirmed)
}

// report counts what became of a line, and says so if it will not run.
func (f *filing) report(line int, o mulligan.Outcome) error {
	switch fate := f.tally.count(o); fate {
	case badLine:
		f.bar.log(f.err, complaint(fmt.Sprintf("line %d", line), o.Err))
	case deadKey:
		f.bar.log(f.err, complaint(fmt.Sprintf("line %d", line), fmt.Errorf("%s %s is %s", o.Receipt.Kind, quote(o.Receipt.ID), deadAlready(o.Receipt))))
	}
	if f.asJSON {
		return f.printLine(newPublishedJob(line, o))
	}
	return nil
}

func (f *filing) summary() {
	if !f.asJSON {
		f.printf("%s, in %v\n", &f.tally, time.Since(f.begun).Round(time.Millisecond))
	}
}
