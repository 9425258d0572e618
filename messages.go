package mulligan

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// msgAsk says which message of a stream is wanted: that of a sequence, with
// NextFor the first at or behind it on a subject, or the last on a subject.
type msgAsk struct {
	Seq     uint64 `json:"seq,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
}

// getMsg reads a message as jetstream.Stream.GetMsg does, from the stream's
// leader, which has them all. Whatever a stranger has written is no error: its
// headers are left out if they are garbage, and a Status is not the server's.
func getMsg(ctx context.Context, js jetstream.JetStream, stream string, which msgAsk) (*jetstream.RawStreamMsg, error) {
	ask, err := json.Marshal(which)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, js.Options().DefaultTimeout)
	defer cancel()
	resp, err := js.Conn().RequestWithContext(ctx, apiPrefix(js.Options())+"STREAM.MSG.GET."+stream, ask)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(resp.Data, &answer); err != nil {
		return nil, fmt.Errorf("read message of %s: %w", stream, err)
	}
	if answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return nil, jetstream.ErrMsgNotFound
	}
	if answer.Error != nil {
		return nil, answer.Error
	}
	m := &jetstream.RawStreamMsg{Subject: answer.Message.Subject, Sequence: answer.Message.Seq, Data: answer.Message.Data, Time: answer.Message.Time}
	if h, err := nats.DecodeHeadersMsg(answer.Message.Header); err == nil {
		m.Header = h
	}
	return m, nil
}

// deleteMsg deletes a message as jetstream.Stream.DeleteMsg does, whose errors do
// not tell a refusal from a stream that has no leader just now.
func deleteMsg(ctx context.Context, js jetstream.JetStream, stream string, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, js.Options().DefaultTimeout)
	defer cancel()
	ask := fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, seq)
	resp, err := js.Conn().RequestWithContext(ctx, apiPrefix(js.Options())+"STREAM.MSG.DELETE."+stream, ask)
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(resp.Data, &answer); err != nil {
		return fmt.Errorf("delete message of %s: %w", stream, err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}

// apiPrefix begins the subjects of the server's requests.
func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	}
	return jetstream.DefaultAPIPrefix
}
