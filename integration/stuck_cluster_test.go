package integration

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

// cluster is three servers, each of which may be down.
type cluster struct {
	opts [3]server.Options
	on   [3]*server.Server
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := new(cluster)
	var routes []*url.URL
	ports := freePorts(t, 2*len(c.on))
	for i := range c.on {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[2*i])})
	}
	for i := range c.on {
		c.opts[i] = server.Options{ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: ports[2*i+1], StoreDir: t.TempDir(), JetStream: true, NoLog: true, NoSigs: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[2*i]}, Routes: routes}
		c.up(t, i)
	}
	t.Cleanup(func() {
		for i := range c.on {
			c.down(i)
		}
	})
	return c
}

func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (c *cluster) up(t *testing.T, i int) {
	t.Helper()
	opts := c.opts[i] // the server fills in what it was not given
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	c.on[i] = s
}

func (c *cluster) down(i int) {
	c.on[i].Shutdown()
	c.on[i].WaitForShutdown()
}

func (c *cluster) urls() (all string) {
	for _, o := range c.opts {
		all += fmt.Sprintf("nats://127.0.0.1:%d,", o.Port)
	}
	return all[:len(all)-1]
}

// leads returns which server leads a consumer.
func (c *cluster) leads(t *testing.T, js jetstream.JetStream, stream, durable string) int {
	t.Helper()
	leader := -1
	eventually(t, time.Minute, "the consumer has a leader", func() bool {
		info, err := mulligan.ConsumerInfo(t.Context(), js, stream, durable)
		if err == nil && info.Cluster != nil && info.Cluster.Leader != "" {
			_, err = fmt.Sscanf(info.Cluster.Leader, "n%d", &leader)
		}
		return err == nil && leader >= 0
	})
	return leader
}

// The server that leads a consumer is lost, then a second one, and both come back.
func TestAClusterThatLosesServersIsSaidWhileNothingLeads(t *testing.T) {
	c := newCluster(t)
	nc, err := nats.Connect(c.urls(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	topology := mulligan.Topology{Replicas: 3}
	eventually(t, time.Minute, "the cluster makes streams", func() bool { return topology.Ensure(t.Context(), js) == nil })
	kind := normal(t, "email.send", mulligan.Keyed)
	log, ran := new(transcript), new(atomic.Int32)
	w := consumer.Worker{Conn: nc, Topology: topology, Log: zerolog.New(log)}
	w.Handle(kind, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { ran.Add(1); return nil, nil }))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	eventually(t, time.Minute, "the worker runs", func() bool { return log.has("worker runs") })
	pub := mulligan.Publisher{Conn: nc, Topology: topology, Kinds: []mulligan.Kind{kind}}
	publish := func(id string) {
		eventually(t, time.Minute, "a job is accepted", func() bool {
			_, err := pub.Publish(ctx, mulligan.Job{Kind: kind.Name, ID: id})
			return err == nil
		})
	}
	publish("a")
	eventually(t, time.Minute, "the first job runs", func() bool { return ran.Load() == 1 })

	leader := c.leads(t, js, topology.JobsStream(), mulligan.DurableName(mulligan.DefaultDownstream))
	c.down(leader)
	publish("b")
	eventually(t, time.Minute, "a job runs without the server that led its consumer", func() bool { return ran.Load() == 2 })

	other := (leader + 1) % len(c.on)
	c.down(other)
	lost := time.Now()
	eventually(t, toSay, "the log says that nothing answers", func() bool { return log.has(`"why":"no_answer"`) })
	t.Logf("said after %v: %s", time.Since(lost).Round(time.Second), log.tail(4))
	c.up(t, leader)
	c.up(t, other)
	publish("c")
	eventually(t, time.Minute, "a job runs with all servers back", func() bool { return ran.Load() == 3 })
	eventually(t, time.Minute, "the log says that it is over", func() bool { return log.has("jobs no longer wait in vain") })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
