package witness

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// Evidence is what is known of a run, from all who took part in it.
type Evidence struct {
	Published []Said[Published]           `json:"published"`
	Calls     []Call                      `json:"calls"` // oldest first
	Operated  []Said[Operated]            `json:"operated"`
	Letters   []Letter                    `json:"letters"`
	Records   map[string]*mulligan.Record `json:"records"` // by kind and token, with a dot
	// Unreadable is what the streams hold and cannot be read.
	Unreadable []string `json:"unreadable,omitempty"`
	// Left is what the streams still held to be done, in words.
	Left string `json:"left,omitempty"`
	// Faults are filled in by who caused them.
	Faults []Fault `json:"faults"`
	// UserRate is how many retries each user might have, also by who caused the run.
	UserRate Rate `json:"user_rate"`
}

// Said is a role's line, and when it was written by the role's clock.
type Said[T any] struct {
	At   time.Time `json:"at"`
	Line T         `json:"line"`
}

// A Call is one that the downstream saw.
type Call struct {
	Called
	Began time.Time `json:"began"`
	// Ended is zero if the downstream was killed first.
	Ended time.Time `json:"ended,omitzero"`
	Gone  bool      `json:"gone,omitempty"`
}

// A Letter is a dead letter as it lies in its stream.
type Letter struct {
	Subject  string             `json:"subject"`
	Seq      uint64             `json:"seq"`
	Kind     string             `json:"kind"`
	ID       string             `json:"id"`
	Payload  string             `json:"payload"` // its fingerprint
	Reason   mulligan.Reason    `json:"reason"`
	Attempts int                `json:"attempts"`
	History  []mulligan.Attempt `json:"history"`
	User     string             `json:"user,omitempty"`
	Task     string             `json:"task,omitempty"`
	BuriedAt time.Time          `json:"buried_at"`
}

// tooMany messages are only counted: a server takes long to list so many subjects.
const tooMany = 1000

// Drained says in words what is left to be done: nothing once it is empty.
func Drained(ctx context.Context, js jetstream.JetStream) (left string, err error) {
	var top mulligan.Topology
	for _, name := range []string{top.JobsStream(), top.RetriesStream()} {
		s, err := js.Stream(ctx, name)
		if err != nil {
			return "", fmt.Errorf("stream %s: %w", name, err)
		}
		info := s.CachedInfo()
		if n := info.State.Msgs; n > 0 && n < tooMany {
			if info, err = s.Info(ctx, jetstream.WithSubjectFilter(">")); err != nil {
				return "", fmt.Errorf("stream %s: %w", name, err)
			}
		}
		if info.State.Msgs > 0 {
			left += fmt.Sprintf("%s has %d messages, such as %s; ", name, info.State.Msgs, some(info.State.Subjects))
		}
		for c := range s.ListConsumers(ctx).Info() {
			if c.NumAckPending > 0 {
				left += fmt.Sprintf("%d of %s are in hands or naks; ", c.NumAckPending, c.Name)
			}
		}
	}
	return left, nil
}

func some(subjects map[string]uint64) (first string) {
	for s := range subjects {
		if first == "" || s < first {
			first = s
		}
	}
	return first
}

// Gather reads the roles' logs, which are files of dir, and what the streams and
// the ledger hold. Whatever else is in dir is left alone.
func Gather(ctx context.Context, js jetstream.JetStream, dir string) (Evidence, error) {
	e := Evidence{Records: map[string]*mulligan.Record{}}
	if err := e.readLogs(dir); err != nil {
		return e, err
	}
	var err error
	if e.Left, err = Drained(ctx, js); err != nil {
		return e, err
	}
	var top mulligan.Topology
	if err := each(ctx, js, top.DeadStream(), e.addLetter); err != nil {
		return e, err
	}
	return e, each(ctx, js, "KV_"+top.LedgerBucket(), e.addRecord)
}

func (e *Evidence) readLogs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var lines []Line
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		more, _, err := readLines(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		lines = append(lines, more...)
	}
	e.addLines(lines)
	return nil
}

func (e *Evidence) addLines(lines []Line) {
	ends := map[int]Line{}
	for _, l := range lines {
		switch {
		case l.Published != nil:
			e.Published = append(e.Published, Said[Published]{l.At, *l.Published})
		case l.Operated != nil:
			e.Operated = append(e.Operated, Said[Operated]{l.At, *l.Operated})
		case l.Called != nil:
			e.Calls = append(e.Calls, Call{Called: *l.Called, Began: l.At})
		case l.Ended != nil:
			ends[l.Ended.Serial] = l
		}
	}
	for i := range e.Calls {
		if end, ok := ends[e.Calls[i].Serial]; ok {
			e.Calls[i].Ended, e.Calls[i].Gone = end.At, end.Ended.Gone
		}
	}
	slices.SortStableFunc(e.Published, func(a, b Said[Published]) int { return a.At.Compare(b.At) })
	slices.SortStableFunc(e.Operated, func(a, b Said[Operated]) int { return a.At.Compare(b.At) })
	slices.SortStableFunc(e.Calls, func(a, b Call) int { return cmp.Compare(a.Serial, b.Serial) })
}

func (e *Evidence) addLetter(m *stored) {
	l, err := mulligan.OpenLetter(&nats.Msg{Header: m.header(), Data: m.Data}, m.Seq)
	if err != nil {
		e.Unreadable = append(e.Unreadable, fmt.Sprintf("letter %d on %s: %v", m.Seq, m.Subject, err))
		return
	}
	e.Letters = append(e.Letters, Letter{Subject: m.Subject, Seq: m.Seq, Kind: l.Kind, ID: l.ID, Payload: fingerprint(m.Data), Reason: l.Reason,
		Attempts: l.Attempts, History: l.History, User: l.User, Task: l.Task, BuriedAt: l.BuriedAt})
}

func (e *Evidence) addRecord(m *stored) {
	if m.header().Get("KV-Operation") != "" {
		return // there is none
	}
	key := strings.TrimPrefix(m.Subject, "$KV."+mulligan.Topology{}.LedgerBucket()+".")
	r, err := mulligan.DecodeRecord(m.Data)
	if err != nil {
		e.Unreadable = append(e.Unreadable, fmt.Sprintf("record %s: %v", key, err))
		return
	}
	e.Records[key] = r
}

// stored is a message of a stream.
type stored struct {
	Subject string `json:"subject"`
	Seq     uint64 `json:"seq"`
	Header  []byte `json:"hdrs"`
	Data    []byte `json:"data"`
}

func (m *stored) header() nats.Header {
	h, err := nats.DecodeHeadersMsg(m.Header)
	if err != nil {
		return nil // what has to be there will be missed
	}
	return h
}

// each reads a stream message by message, in any order. It asks the stream's leader: a consumer,
// and a direct read, may see a replica that lags behind.
func each(ctx context.Context, js jetstream.JetStream, stream string, see func(m *stored)) error {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", stream, err)
	}
	state := s.CachedInfo().State
	part := (state.LastSeq-state.FirstSeq)/readers + 1
	var (
		reading sync.WaitGroup
		one     sync.Mutex
		errs    [readers]error
	)
	for i := range uint64(readers) {
		reading.Go(func() {
			from := state.FirstSeq + i*part
			errs[i] = eachOf(ctx, js, stream, span{from, from + part}, func(m *stored) {
				one.Lock()
				defer one.Unlock()
				see(m)
			})
		})
	}
	reading.Wait()
	return errors.Join(errs[:]...)
}

// readers read a stream side by side, each a part of it: one question at a time
// would take minutes.
const readers = 16

// A span is sequences from one up to another, which is not part of it.
type span struct{ from, to uint64 }

func eachOf(ctx context.Context, js jetstream.JetStream, stream string, of span, see func(m *stored)) error {
	for seq := of.from; ; {
		m, err := next(ctx, js, stream, seq)
		for try := 1; err != nil && try < 10 && pause(ctx, time.Duration(try)*100*time.Millisecond); try++ {
			m, err = next(ctx, js, stream, seq) // there may be no leader just now
		}
		if err != nil {
			return fmt.Errorf("read %s from %d on: %w", stream, seq, err)
		}
		if m == nil || m.Seq >= of.to {
			return nil
		}
		see(m)
		seq = m.Seq + 1
	}
}

// next returns the first message from a sequence on, or nil.
func next(ctx context.Context, js jetstream.JetStream, stream string, seq uint64) (*stored, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">"}`, seq))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *stored             `json:"message"`
	}
	if err := json.Unmarshal(resp.Data, &answer); err != nil {
		return nil, err
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	case answer.Error != nil:
		return nil, answer.Error
	}
	return answer.Message, nil
}
