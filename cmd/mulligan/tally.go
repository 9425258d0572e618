package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mulligan-queue/mulligan"
)

// A tally counts what became of the lines of a file.
type tally struct {
	stored, duplicate, done, dead, bad int
	unverified                         int // of the duplicates
	unconfirmed                        int // the server took nothing more, or did not answer
}

// A fate is what became of one line.
type fate int

const (
	runs    fate = iota // stored, now or before
	ended               // done before
	deadKey             // spent or dead: only a person lets it run again
	badLine             // a mistake in the line, or one that only it meets
	unsent              // the next line would fare no better
)

func (t *tally) count(o mulligan.Outcome) fate {
	r := o.Receipt
	switch {
	case hopeless(o.Err):
		t.unconfirmed++
		return unsent
	case o.Err != nil:
		t.bad++
		return badLine
	case r.State == mulligan.Done:
		t.done++
		return ended
	case r.Ended():
		t.dead++
		return deadKey
	case r.Duplicate:
		t.duplicate++
		if r.Unverified {
			t.unverified++
		}
	default:
		t.stored++
	}
	return runs
}

func (t *tally) String() string {
	duplicates := strconv.Itoa(t.duplicate)
	if t.unverified > 0 {
		duplicates += fmt.Sprintf(" (%d unverified: nothing is left to compare its payload with)", t.unverified)
	}
	s := fmt.Sprintf("published %d, duplicates %s, done before %d, dead or spent %d, bad lines %d", t.stored, duplicates, t.done, t.dead, t.bad)
	if t.unconfirmed > 0 {
		s += fmt.Sprintf(", not confirmed %d", t.unconfirmed)
	}
	return s
}

// err is what a person has to mend, or nil.
func (t *tally) err() error {
	switch {
	case t.bad > 0 && t.dead > 0:
		return fmt.Errorf("lines not published: %d, and %d whose keys are dead or spent; mend them and publish the file again, IDs keep the others from running twice", t.bad, t.dead)
	case t.bad > 0:
		return fmt.Errorf("lines not published: %d; mend them and publish the file again, IDs keep the others from running twice", t.bad)
	case t.dead > 0:
		return fmt.Errorf("lines whose keys are dead or spent: %d; see `mulligan dead ls`", t.dead)
	}
	return nil
}

// A trouble is one error that several lines of a batch met.
type trouble struct {
	cause string
	lines []int // the first few
	count int
}

// troubles are distinct, in the order in which they were met.
type troubles []*trouble

func (all *troubles) add(line int, err error) {
	const shown = 5
	cause := cause(err)
	for _, t := range *all {
		if t.cause == cause {
			if t.count++; len(t.lines) < shown {
				t.lines = append(t.lines, line)
			}
			return
		}
	}
	*all = append(*all, &trouble{cause: cause, lines: []int{line}, count: 1})
}

// cause is an error without the job that met it.
func cause(err error) string {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "publish ") {
		err = inner
	}
	return strings.TrimPrefix(err.Error(), "mulligan: ")
}

// String is one line.
func (t *trouble) String() string {
	var lines []string
	for _, n := range t.lines {
		lines = append(lines, strconv.Itoa(n))
	}
	about := "line " + lines[0]
	if t.count > 1 {
		about = "lines " + strings.Join(lines, ", ")
	}
	if more := t.count - len(t.lines); more > 0 {
		about += fmt.Sprintf(" and %d more", more)
	}
	return complaint(about, errors.New(t.cause))
}
