package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestAKeyThatIsDeadCountsApartFromOneThatIsDone(t *testing.T) {
	e, at := provisionedServer(t)
	payload := mulligan.FingerprintOf([]byte("1"))
	record(t, e, "email.send", "done", mulligan.Record{State: mulligan.Done, Payload: payload})
	record(t, e, "email.send", "dead one", mulligan.Record{State: mulligan.Dead, Payload: payload, Reason: mulligan.Expired})
	record(t, e, "email.send", "doubted", mulligan.Record{State: mulligan.Spent, Payload: payload, Reason: mulligan.InDoubt})
	if c := call(t, "", at("publish", "llm.complete", "1", "--id", "gone")...); c.code != exitDone {
		t.Fatal(c.err)
	}
	s, err := e.JS.Stream(t.Context(), mulligan.Topology{}.JobsStream())
	if err == nil {
		err = s.Purge(t.Context()) // as if it had run
	}
	if err != nil {
		t.Fatal(err)
	}
	var in strings.Builder
	for _, id := range []string{"done", "dead one", "doubted", "new", "new"} {
		fmt.Fprintf(&in, `{"kind":"email.send","id":%q,"payload":1}`+"\n", id)
	}
	in.WriteString(`{"kind":"llm.complete","id":"gone","payload":1}` + "\n")
	c := call(t, in.String(), at("publish", "--file", "-")...)
	if want := "published 1, duplicates 2 (1 unverified: nothing is left to compare its payload with), done before 1, dead or spent 2, bad lines 0,"; c.code != exitFailed || !strings.HasPrefix(c.out, want) {
		t.Errorf("exit %d, %q; want exit 1 and %q", c.code, c.out, want)
	}
	for _, want := range []string{
		"line 2: email.send 'dead one' is dead (expired); run it with `mulligan dead replay email.send 'dead one'`",
		"line 3: email.send doubted is spent (in_doubt); `mulligan dead resolve --done email.send doubted`",
		"dead or spent: 2",
	} {
		if !strings.Contains(c.err, want) || strings.Count(c.err, "\n") != 3 {
			t.Errorf("standard error is %q, want two lines by number and a last word, with %q", c.err, want)
		}
	}
}

func TestAFullStreamStopsAFileWithOneLineAndASummary(t *testing.T) {
	e := natstest.Server(t)
	config := write(t, "full.yaml", twoKinds+"topology: {jobs_max_bytes: 20000}\n")
	if c := call(t, "", "provision", "--config", config, "--server", e.URL); c.code != exitDone {
		t.Fatal(c.err)
	}
	in := "\xef\xbb\xbf" + strings.Repeat(`{"kind":"llm.complete","payload":"`+strings.Repeat("x", 100)+`"}`+"\n", 1500)
	c := call(t, in, "publish", "--file", "-", "--server", e.URL)
	s, err := e.JS.Stream(t.Context(), mulligan.Topology{}.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	stored := s.CachedInfo().State.Msgs
	if want := fmt.Sprintf("published %d, duplicates 0, done before 0, dead or spent 0, bad lines 0, not confirmed %d,", stored, 1000-stored); stored == 0 || c.code != exitFailed || !strings.HasPrefix(c.out, want) {
		t.Errorf("exit %d, %q; want exit 1 and %q", c.code, c.out, want)
	}
	first := fmt.Sprintf("lines %d, %d, %d, %d, %d and %d more: stream full", stored+1, stored+2, stored+3, stored+4, stored+5, 1000-stored-5)
	if lines := strings.Split(strings.TrimSpace(c.err), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[0], first) || !strings.Contains(lines[1], "stopped after line 1000") {
		t.Errorf("standard error is %q, want %q and that it stopped", c.err, first)
	}
}

// While a batch is published the next is read; what a signal finds read is not sent.
func TestASignalStopsAFileAfterTheBatchThatWasSent(t *testing.T) {
	e, at := provisionedServer(t)
	in, feed := io.Pipe()
	out, printed := io.Pipe()
	var errs bytes.Buffer
	ctx, signal := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		p := program{in: in, out: printed, err: &errs}
		code <- p.run(ctx, at("publish", "--json", "--file", "-"))
		_ = printed.Close()
	}()
	go func() { _, _ = io.WriteString(feed, strings.Repeat(`{"kind":"llm.complete"}`+"\n", batchJobs+1)) }()
	lines := bufio.NewScanner(out)
	for range batchJobs { // nobody ends the input, and what became of the batch is told
		if !lines.Scan() {
			t.Fatal(lines.Err(), errs.String())
		}
	}
	signal()
	if lines.Scan() {
		t.Errorf("after the batch: %s", lines.Text())
	}
	s, err := e.JS.Stream(t.Context(), mulligan.Topology{}.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	if c := <-code; c != exitFailed || s.CachedInfo().State.Msgs != batchJobs || !strings.Contains(errs.String(), "stopped after line 1000, with 1000 published") {
		t.Errorf("exit %d, %q with %d stored; want exit 1 and where it stopped", c, &errs, s.CachedInfo().State.Msgs)
	}
	_ = feed.Close()
}

func TestWhatWasReadBeforeAReadErrorIsPublished(t *testing.T) {
	e, at := provisionedServer(t)
	var out, errs bytes.Buffer
	lines := strings.Repeat(`{"kind":"llm.complete"}`+"\n", batchJobs+500)
	p := program{in: io.MultiReader(strings.NewReader(lines), iotest.ErrReader(errors.New("the disk is gone"))), out: &out, err: &errs}
	code := p.run(t.Context(), at("publish", "--file", "-"))
	s, err := e.JS.Stream(t.Context(), mulligan.Topology{}.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	if code != exitFailed || s.CachedInfo().State.Msgs != batchJobs+500 || !strings.HasPrefix(out.String(), "published 1500, ") || !strings.Contains(errs.String(), "read line 1501: the disk is gone") {
		t.Errorf("exit %d, %q, %q with %d stored; want exit 1, and all lines", code, &out, &errs, s.CachedInfo().State.Msgs)
	}
}

func TestOneErrorOfManyLinesIsOneLine(t *testing.T) {
	var all troubles
	for line := 1; line <= 1000; line++ {
		why := fmt.Errorf("%w: %w", mulligan.ErrUnconfirmed, nats.ErrTimeout)
		if line%100 == 0 {
			why = mulligan.ErrStreamFull
		}
		all.add(line, fmt.Errorf("publish k %q: %w", fmt.Sprint(line), why))
	}
	all.add(1001, fmt.Errorf("read the record: %w", mulligan.ErrUnavailable))
	want := []string{
		"lines 1, 2, 3, 4, 5 and 985 more: unconfirmed: nats: timeout",
		"lines 100, 200, 300, 400, 500 and 5 more: stream full",
		"line 1001: read the record: mulligan: server unavailable",
	}
	if len(all) != len(want) {
		t.Fatalf("got %d lines, want %d", len(all), len(want))
	}
	for i := range want {
		if got := all[i].String(); got != want[i] {
			t.Errorf("got  %s\nwant %s", got, want[i])
		}
	}
}
