package pull_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/pull"
)

// onward stands for a request that the server gets after all.
const onward = "onward"

// answering has a stand-in for the server say the same to every request under a
// prefix, which the server itself says on rare days only. It returns the source
// that asks there.
func (b *bench) answering(t *testing.T, js jetstream.JetStream, prefix string, words ...string) *pull.Source {
	t.Helper()
	server := b.Dial(t)
	const next = "CONSUMER.MSG.NEXT.QUEUE.hands"
	_, err := server.Subscribe(prefix+next, func(ask *nats.Msg) {
		for _, word := range words {
			status, text, _ := strings.Cut(word, " ")
			m := &nats.Msg{Subject: ask.Reply, Header: nats.Header{"Status": {status}, "Description": {text}}}
			if word == onward {
				m = &nats.Msg{Subject: jetstream.DefaultAPIPrefix + next, Reply: ask.Reply, Data: ask.Data}
			}
			if err := server.PublishMsg(m); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Flush(); err != nil {
		t.Fatal(err)
	}
	return pull.From(js, "QUEUE", "hands")
}

func TestAPullAndTheWordsOfTheServer(t *testing.T) {
	b := newBench(t)
	b.put(t, "a")
	for i, tt := range []struct {
		name  string
		words []string
		want  error  // if it is a known one
		text  string // in the error otherwise
	}{
		{"nothing more", []string{"408 Request Timeout"}, nil, ""},
		{"nothing at all", []string{"404 No Messages"}, nil, ""},
		{"a deleted consumer", []string{"409 Consumer Deleted"}, jetstream.ErrConsumerDeleted, ""},
		{"a leader that is gone", []string{"100 Idle Heartbeat", "409 Leadership Change"}, nil, "409 Leadership Change"},
		{"a request over a limit", []string{"409 Exceeded MaxRequestBatch of 2"}, nil, "409 Exceeded MaxRequestBatch of 2"},
		{"too many requests", []string{"409 Exceeded MaxWaiting"}, nil, "409 Exceeded MaxWaiting"},
		{"a bad request", []string{"400 Bad Request"}, nil, "400 Bad Request"},
		{"JetStream is away", []string{"503"}, nats.ErrNoResponders, ""},
		{"silence", nil, nats.ErrTimeout, "no word of the server"},
		{"heartbeats, then silence", []string{"100 Idle Heartbeat", "100 Idle Heartbeat"}, nats.ErrTimeout, "no word of the server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			prefix := fmt.Sprint("word.", i)
			js, err := jetstream.NewWithAPIPrefix(b.Conn, prefix)
			if err != nil {
				t.Fatal(err)
			}
			err = b.answering(t, js, prefix+".", tt.words...).Each(t.Context(), 3, brief, func(m *nats.Msg) { t.Errorf("%+v is no job", m) })
			switch {
			case tt.want == nil && tt.text == "":
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
			case err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text):
				t.Errorf("got %v, want %v %s", err, tt.want, tt.text)
			}
		})
	}
}

func TestAPullAsksInTheDomainOfItsJetStream(t *testing.T) {
	b := newBench(t)
	b.put(t, "a")
	js, err := jetstream.NewWithDomain(b.Conn, "hub")
	if err != nil {
		t.Fatal(err)
	}
	b.Source = b.answering(t, js, "$JS.hub.API.", "100 Idle Heartbeat", onward)
	if got, err := b.each(t, 1, long); err != nil || !slices.Equal(got, []string{"job.a"}) {
		t.Errorf("got %v, %v; want the job behind a heartbeat", got, err)
	}
}
