package witness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// A Line is one fact that a role wrote down.
type Line struct {
	Role string    `json:"role"`
	At   time.Time `json:"at"` // by the wall clock of the role
	// Since is the role's own time since it began, and Process tells one life of
	// it from the next.
	Since   time.Duration `json:"since_ns"`
	Process int           `json:"process"`
	// One of these is set.
	Published *Published `json:"published,omitempty"`
	Called    *Called    `json:"called,omitempty"`
	Ended     *Ended     `json:"ended,omitempty"`
	Operated  *Operated  `json:"operated,omitempty"`
}

const lineStart = `{"role":`

// journal is a role's log: each line is one write, so that a role that is killed
// has told all that it acted upon. It is safe for concurrent use.
type journal struct {
	role    string
	began   time.Time
	process int

	mu   sync.Mutex
	file *os.File
}

// openJournal returns the log and what earlier lives of the role wrote there.
func openJournal(role, path string) (*journal, []Line, error) {
	past, torn, err := readLines(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if torn { // the next line must not be lost with it
		if _, err := file.WriteString("\n"); err != nil {
			return nil, nil, err
		}
	}
	return &journal{role: role, began: time.Now(), process: os.Getpid(), file: file}, past, nil
}

// write returns once the line is with the system, and when it was written.
func (j *journal) write(l Line) (at time.Time, err error) {
	l.Role, l.At, l.Since, l.Process = j.role, time.Now(), time.Since(j.began), j.process
	b, err := json.Marshal(l)
	if err != nil {
		return l.At, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err = j.file.Write(append(b, '\n')); err != nil {
		err = fmt.Errorf("log of %s: %w", j.role, err)
	}
	return l.At, err
}

func (j *journal) close() { _ = j.file.Close() } // each line was written by itself

// readLines returns the lines of a log, and whether its last one has no end. What
// is no line of a role is skipped: a write may have been cut, by a disk that was
// full, and was not acted upon then.
func readLines(path string) (lines []Line, torn bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = file.Close() }()
	for r := bufio.NewReader(file); ; {
		text, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, false, err
		}
		var l Line
		if bytes.HasPrefix(text, []byte(lineStart)) && json.Unmarshal(text, &l) == nil {
			lines = append(lines, l)
		}
		if err != nil {
			return lines, len(text) > 0, nil
		}
	}
}
