package integration

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// What draft-ietf-httpapi-idempotency-key-header asks of a server, by a client
// that knows nothing of Mulligan.
func TestAnHTTPClientGetsTheAnswersOfTheIdempotencyKeyDraft(t *testing.T) {
	t.Parallel()
	api := newMailAPI(t, true)
	s := start(t, "serve", "--config", mailKinds(t, map[mulligan.Effect]*mailAPI{mulligan.Keyed: api}),
		"--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--data", t.TempDir())
	type answer struct {
		Status int             `json:"-"`
		Type   string          `json:"type"`
		State  string          `json:"state"`
		Reason mulligan.Reason `json:"reason"`
		Job    string          `json:"job"`
		Result json.RawMessage `json:"result"`
	}
	post := func(key, body string) (a answer) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.HTTP+"/v1/jobs/mail.keyed", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		a = decode[answer](t, b)
		if a.Status = resp.StatusCode; a.Status >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%d came as %s", a.Status, resp.Header.Get("Content-Type"))
		}
		return a
	}
	if a := post("", `{"to":"ada"}`); a.Status != http.StatusBadRequest {
		t.Errorf("without a key: %+v, want 400", a)
	}
	if a := post("order-1", `{"to":"ada"}`); a.Status != http.StatusAccepted {
		t.Errorf("the first request: %+v, want 202", a)
	}
	eventually(t, 30*time.Second, "the job is done", func() bool { return post("order-1", `{"to":"ada"}`).Status == http.StatusOK })
	first := post("order-1", `{"to":"ada"}`)
	for _, key := range []string{"order-1", `"order-1"`} {
		a := post(key, `{"to":"ada"}`)
		if a.Status != http.StatusOK || !strings.Contains(string(a.Result), `"n":1`) || string(a.Result) != string(first.Result) {
			t.Errorf("repeated as %s: %+v, want 200 with the original result", key, a)
		}
	}
	if a := post("order-1", `{"to":"bob"}`); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("the key with another payload: %+v, want 422", a)
	}
	post("refuse-1", `{"to":"nobody"}`)
	eventually(t, 30*time.Second, "the refused job is dead", func() bool { return post("refuse-1", `{"to":"nobody"}`).State == mulligan.StatusDead })
	if a := post("refuse-1", `{"to":"nobody"}`); a.Status != http.StatusConflict || a.Reason != mulligan.PermanentFailure || a.Job != "/v1/jobs/mail.keyed/refuse-1" {
		t.Errorf("a dead key: %+v, want 409 with the reason and where it is", a)
	}
	if calls, mails := api.seen(); mails["mail.keyed/order-1"] != 1 || len(calls) != 2 {
		t.Errorf("the downstream saw %q", calls)
	}
}
