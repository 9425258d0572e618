package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// uncovered looks for messages that no consumer will ever deliver: of a kind
// with a typing error, or without an ID. They lie in the stream for ever.
func (f *findings) uncovered(ctx context.Context, kinds []mulligan.Kind) {
	const (
		check = "stray messages"
		shown = 5
	)
	covered, left, err := f.leftOver(ctx)
	if err != nil {
		f.warn(check, err.Error(), "check that this user may read the stream and list its consumers")
		return
	}
	if left == 0 {
		f.ok(check, "none in %s", f.Topology.JobsStream())
		return
	}
	for _, k := range kinds { // that its consumer is missing is found elsewhere
		covered = append(covered, f.Topology.JobsRoot()+"."+k.Name+".*")
	}
	subjects, all, err := f.subjects(ctx)
	if err != nil {
		f.warn(check, err.Error(), "check that this user may read the stream")
		return
	}
	stray := slices.DeleteFunc(subjects, func(s string) bool {
		return slices.ContainsFunc(covered, func(filter string) bool { return covers(filter, s) })
	})
	n := len(stray)
	switch {
	case n > shown:
		stray = stray[:shown]
	case n == 0 && all: // jobs that were taken and done between two questions
		f.ok(check, "none in %s", f.Topology.JobsStream())
		return
	case n == 0:
		f.warn(check, fmt.Sprintf("about %d messages in %s that no consumer delivers, too many subjects to list", left, f.Topology.JobsStream()), strayDo)
		return
	}
	f.warn(check, fmt.Sprintf("no consumer delivers %d subjects in %s, such as %s", n, f.Topology.JobsStream(), quoted(stray)), strayDo)
}

const strayDo = "declare the kind if it is right; else publish the job again as it should be, under <prefix>.jobs.<kind>.<id>, and remove it with `nats stream purge --subject`"

// leftOver returns the filters of all consumers of the stream of jobs, and how
// many of its messages are in none of them. A stream at work may seem to have
// some more than it has.
func (f *findings) leftOver(ctx context.Context) (filters []string, left uint64, err error) {
	s, err := f.js.Stream(ctx, f.Topology.JobsStream())
	if err != nil {
		return nil, 0, err
	}
	has := s.CachedInfo().State.Msgs
	list, known := s.ListConsumers(ctx), uint64(0)
	for c := range list.Info() {
		if c.Config.FilterSubject != "" {
			filters = append(filters, c.Config.FilterSubject)
		}
		filters = append(filters, c.Config.FilterSubjects...)
		known += c.NumPending + uint64(c.NumAckPending)
	}
	if err := list.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, 0, err
	}
	if known >= has {
		return filters, 0, nil
	}
	return filters, has - known, nil
}

// subjects asks for the subjects in the stream of jobs once, which brings as
// many as the server puts into one answer; all says whether that was all.
func (f *findings) subjects(ctx context.Context) (subjects []string, all bool, err error) {
	ask := fmt.Appendf(nil, `{"subjects_filter":%q}`, f.Topology.JobsRoot()+".>")
	resp, err := f.Conn.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.INFO."+f.Topology.JobsStream(), ask)
	if err != nil {
		return nil, false, fmt.Errorf("list subjects: %w", err)
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		Total int                 `json:"total"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	if err := json.Unmarshal(resp.Data, &answer); err != nil {
		return nil, false, fmt.Errorf("list subjects: %w", err)
	}
	if answer.Error != nil {
		return nil, false, fmt.Errorf("list subjects: %w", answer.Error)
	}
	return slices.Sorted(maps.Keys(answer.State.Subjects)), answer.Total <= len(answer.State.Subjects), nil
}

// covers reports whether a filter matches a subject, by token.
func covers(filter, subject string) bool {
	want, have := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, token := range want {
		switch {
		case token == ">":
			return len(have) > i
		case i >= len(have), token != "*" && token != have[i]:
			return false
		}
	}
	return len(want) == len(have)
}

func quoted(all []string) string {
	var q []string
	for _, s := range all {
		q = append(q, fmt.Sprintf("%.120q", s))
	}
	return strings.Join(q, ", ")
}
