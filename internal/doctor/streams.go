package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// topologyVersion is the one whose properties are checked here.
const topologyVersion = 1

const provision = "run `mulligan provision`"

// wanted is what a stream must be so that no job is lost; the rest is comfort.
type wanted struct {
	name    string
	subject string
	ok      func(c jetstream.StreamConfig) (missing string)
}

func (f *findings) wanted() []wanted {
	t := f.Topology
	list := []wanted{
		{t.JobsStream(), t.JobsRoot() + ".>", func(c jetstream.StreamConfig) string {
			return first(is(c.Retention == jetstream.WorkQueuePolicy, "a work queue"), is(c.Discard == jetstream.DiscardNew, "discard new"),
				is(c.MaxMsgsPerSubject == 1 && c.DiscardNewPerSubject, "one message per subject, the first one"))
		}},
		{t.RetriesStream(), strings.TrimSuffix(t.AtRoot(), ".at") + ".>", func(c jetstream.StreamConfig) string {
			return first(is(c.Retention == jetstream.WorkQueuePolicy, "a work queue"), is(c.AllowMsgSchedules, "schedules"),
				is(c.MaxBytes <= 0 && c.MaxMsgs <= 0 && c.MaxAge == 0, "no limits"))
		}},
		{t.DeadStream(), t.DeadRoot() + ".>", func(c jetstream.StreamConfig) string {
			return first(is(c.Retention == jetstream.LimitsPolicy, "limits"), is(c.MaxMsgsPerSubject == 1, "one message per subject"),
				is(c.Discard == jetstream.DiscardNew && !c.DiscardNewPerSubject, "discard new when full"))
		}},
		{t.EventsStream(), t.EventsRoot() + ".>", func(c jetstream.StreamConfig) string { return is(c.MaxBytes > 0, "bounded bytes") }},
	}
	for _, bucket := range []string{t.LedgerBucket(), t.BudgetBucket(), t.KindsBucket()} {
		list = append(list, wanted{"KV_" + bucket, "$KV." + bucket + ".>", func(jetstream.StreamConfig) string { return "" }})
	}
	return list
}

func is(ok bool, property string) string {
	if ok {
		return ""
	}
	return property
}

func first(missing ...string) string {
	for _, m := range missing {
		if m != "" {
			return m
		}
	}
	return ""
}

// streams checks every stream, the ones behind the buckets too. Without them
// there is nothing more to check.
func (f *findings) streams(ctx context.Context) (goOn bool) {
	goOn = true
	for _, w := range f.wanted() {
		before := time.Now()
		s, err := f.js.Stream(ctx, w.name)
		took := time.Since(before)
		check := "stream " + w.name
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			f.fail(check, "missing", provision)
			goOn = false
		case err != nil:
			f.fail(check, err.Error(), "check that this user may read the stream")
			return false // the others would keep us waiting, too
		default:
			f.stream(check, w, s.CachedInfo())
		}
		if goOn && w.name == f.Topology.JobsStream() {
			f.clock(before.Add(took/2), s.CachedInfo().TimeStamp)
		}
	}
	return goOn
}

func (f *findings) stream(check string, w wanted, info *jetstream.StreamInfo) {
	c := info.Config
	version, _ := strconv.Atoi(c.Metadata["mulligan.topology"])
	missing := w.ok(c)
	switch {
	case version > topologyVersion:
		f.warn(check, fmt.Sprintf("topology version %d is newer than this program's %d", version, topologyVersion), "upgrade this program")
		return
	case !slices.Contains(c.Subjects, w.subject):
		f.fail(check, fmt.Sprintf("it has the subjects %v, not %s", c.Subjects, w.subject), provision)
		return
	case missing != "":
		f.fail(check, "it is not as it should be: wanted "+missing, provision)
		return
	case version < topologyVersion:
		f.warn(check, "an older program made it", provision)
		return
	case c.Storage != jetstream.FileStorage:
		f.fail(check, "it is kept in memory, and lost with the server", "create it anew with file storage: "+provision+" after deleting it when empty")
		return
	}
	nodes := 1
	if info.Cluster != nil {
		nodes = max(1, 1+len(info.Cluster.Replicas))
	}
	f.replicas(check, c, info.Cluster, nodes)
}

// replicas compares the copies wanted with where they are.
func (f *findings) replicas(check string, c jetstream.StreamConfig, cluster *jetstream.ClusterInfo, nodes int) {
	clustered := cluster != nil && cluster.Name != ""
	switch {
	case clustered && c.Replicas < 3:
		f.warn(check, fmt.Sprintf("%d replica in a cluster: it is gone while its server is", c.Replicas), "set topology.replicas: 3 and "+provision)
	case c.Replicas > nodes:
		f.fail(check, fmt.Sprintf("%d of %d replicas are there", nodes, c.Replicas), "bring the missing servers back")
	case clustered && slices.ContainsFunc(cluster.Replicas, func(p *jetstream.PeerInfo) bool { return p.Offline || !p.Current }):
		f.warn(check, "a replica is offline or behind", "wait, or bring its server back; one that stays behind catches up once it is restarted")
	default:
		f.ok(check, "as it should be, %s storage, %d replicas", strings.ToLower(c.Storage.String()), max(1, c.Replicas))
	}
}

// clock compares the server's time with ours at the middle of its answer.
func (f *findings) clock(here, there time.Time) {
	const (
		check   = "clock"
		allowed = time.Second
	)
	if there.IsZero() {
		return // an older server does not tell
	}
	skew := there.Sub(here).Round(time.Millisecond)
	if skew.Abs() > allowed {
		f.warn(check, fmt.Sprintf("the server's clock is %v away from this machine's", skew), "synchronise both with NTP: deadlines and schedules depend on it")
		return
	}
	f.ok(check, "%v away from the server's", skew)
}
