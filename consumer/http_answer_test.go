package consumer

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

func TestHTTPAnswerSaysItsOutcomeItself(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", mulligan.MaxChanged+1)
	for _, c := range []struct {
		name    string
		outcome string
		after   string // Retry-After
		body    string
		want    string
	}{
		{"done", "done", "", "sent", "done"},
		{"done without a body", "done", "", "", "done"},
		{"done needs no wait", "done", "7", "sent", "done"},
		{"in capitals", "DONE", "", "sent", "done"},
		{"with space around", " Done\t", "", "sent", "done"},
		{"transient", "transient", "", "", "transient"},
		{"transient after a wait", "transient", "7", "", "after 7s"},
		{"transient after a wait that is over", "transient", "0", "", "transient"},
		{"permanent", "permanent", "", "", "permanent"},
		{"permanent is not saved by a wait", "permanent", "7", "", "permanent"},
		{"unusable", "unusable", "", "", "unusable"},
		{"unusable is not saved by a wait", "unusable", "7", "", "unusable"},
		{"changed", "changed", "", "shorter", "changed to shorter"},
		{"changed to nothing", "changed", "", "", "permanent"},
		{"changed to too much", "changed", "", long, "permanent"},
		{"changed to as much as there may be", "changed", "", long[1:], "changed to " + long[1:]},
		{"snooze", "snooze", "7", "", "snooze 7s"},
		{"snooze without a wait", "snooze", "", "", "snooze 0s"},
		{"snooze with a wait that is garbage", "snooze", "soon", "", "snooze 0s"},
		{"not started", "not-started", "", "", "not started, transient"},
		{"not started, after a wait", "Not-Started", "7", "", "not started, after 7s"},
	} {
		// Each of these statuses means something else.
		for _, status := range []int{101, 200, 204, 302, 304, 400, 409, 422, 429, 500, 501, 503, 600} {
			h := http.Header{"Mulligan-Outcome": {c.outcome}}
			if c.after != "" {
				h.Set("Retry-After", c.after)
			}
			err := httpMeaning(status, h, []byte(c.body), time.Now())
			if got := httpOutcome(err); got != c.want {
				t.Errorf("%s: status %d: got %.80s, want %.80s", c.name, status, got, c.want)
			}
			wantType := "http_" + strconv.Itoa(status)
			switch {
			case c.want == "done":
				wantType = ""
			case strings.HasPrefix(c.want, "snooze"):
				wantType = "error" // it is none, and has no type of its own
			case status == 600:
				wantType = "http_other"
			}
			if got := mulligan.ErrorType(err); got != wantType {
				t.Errorf("%s: status %d: got type %q, want %q", c.name, status, got, wantType)
			}
		}
	}
}

func TestHTTPOutcomeThatIsNoneLeavesItToTheStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		outcome string
		status  int
		retry   string // Mulligan-Retry
		want    string
		text    string // how the error begins
	}{
		{"an unknown word of a success", "perhaps", 200, "", "done", ""},
		{"an unknown word of an unavailable provider", "perhaps", 503, "", "after 0s", `answered 503 Service Unavailable, outcome "perhaps" was not understood: body`},
		{"an unknown word of a refusal", "perhaps", 400, "", "permanent", `answered 400 Bad Request, outcome "perhaps" was not understood: body`},
		{"a changed payload by the older header", "perhaps", 422, "changed", "changed to body", `answered 422 Unprocessable Entity, outcome "perhaps" was not understood: body`},
		{"the header goes over the older one", "transient", 422, "changed", "transient", `answered 422 Unprocessable Entity, outcome transient: body`},
		{"a word of this package alone", "throttled", 500, "", "transient", `answered 500 Internal Server Error, outcome "throttled" was not understood`},
		{"two words", "done, permanent", 500, "", "transient", `answered 500 Internal Server Error, outcome "done, permanent" was not understood`},
		{"a word in two spellings of the hyphen", "not_started", 500, "", "transient", `answered 500 Internal Server Error, outcome "not_started" was not understood`},
		{"a long word is cut", strings.Repeat("x", 100), 500, "", "transient", `answered 500 Internal Server Error, outcome "` + strings.Repeat("x", 40) + `" was not understood: body`},
		{"a word that does not print", "d\x1bone", 500, "", "transient", `answered 500 Internal Server Error, outcome "d\x1bone" was not understood`},
		{"a header without a word", " ", 500, "", "transient", `answered 500 Internal Server Error: body`},
		{"a success that says it failed", "permanent", 200, "", "permanent", `answered 200 OK, outcome permanent: body`},
	} {
		h := http.Header{"Mulligan-Outcome": {c.outcome}}
		if c.retry != "" {
			h.Set("Mulligan-Retry", c.retry)
		}
		err := httpMeaning(c.status, h, []byte("body"), time.Now())
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got := httpOutcome(err); got != c.want || !strings.HasPrefix(text, c.text) {
			t.Errorf("%s: got %s with %q, want %s with %q", c.name, got, text, c.want, c.text)
		}
	}
}

func TestHTTPAnswerNamesItsError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		status  int
		outcome string
		errType string // Mulligan-Error-Type
		want    string
	}{
		{"by status", 503, "", "", "http_503"},
		{"a word of its own", 503, "", "mailbox_full", "mailbox_full"},
		{"a word with space around", 503, "", " mailbox_full ", "mailbox_full"},
		{"a refusal", 400, "", "mailbox_closed", "mailbox_closed"},
		{"a redirect", 302, "", "moved", "moved"},
		{"an outcome of its own", 200, "not-started", "queue_full", "queue_full"},
		{"a changed payload", 422, "changed", "too_long", "too_long"},
		{"a snooze", 200, "snooze", "closed_at_night", "closed_at_night"},
		{"forty characters", 503, "", strings.Repeat("x", 40), strings.Repeat("x", 40)},
		{"forty-one are ignored", 503, "", strings.Repeat("x", 41), "http_503"},
		{"capitals are ignored", 503, "", "MailboxFull", "http_503"},
		{"two words are ignored", 503, "", "mailbox full", "http_503"},
		{"a success has none", 200, "", "mailbox_full", ""},
	} {
		h := http.Header{"Location": {"/other"}, "Mulligan-Error-Type": {c.errType}, "Mulligan-Outcome": {c.outcome}}
		err := httpMeaning(c.status, h, []byte("body"), time.Now())
		if got := mulligan.ErrorType(err); got != c.want {
			t.Errorf("%s: %d %v: got type %q, want %q", c.name, c.status, h, got, c.want)
		}
	}
}

func TestHTTPChangedPayloadThatCannotBeSaysWhy(t *testing.T) {
	t.Parallel()
	for _, h := range []http.Header{{"Mulligan-Outcome": {"changed"}}, {"Mulligan-Retry": {"changed"}}} {
		for _, c := range []struct{ name, body, want string }{
			{"no payload", "", "changed payload is missing, the answer has no body: answered 422"},
			{"too large a payload", strings.Repeat("x", mulligan.MaxChanged+1), "changed payload is over 262144 bytes: answered 422"},
		} {
			if err := httpMeaning(422, h, []byte(c.body), time.Now()); !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%s: %v: got %q, want %q", c.name, h, err, c.want)
			}
		}
	}
}

// The same over a connection: the header arrives as the server wrote it, the
// body is the result, and what broke off is neither a result nor a payload.
func TestHTTPOutcomeArrives(t *testing.T) {
	t.Parallel()
	target := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Mulligan-Outcome", r.Header.Get("Mulligan-Task"))
		w.Header().Set("Retry-After-Ms", "1500")
		if strings.HasPrefix(r.Header.Get("Mulligan-Id"), "broken") {
			w.Header().Set("Content-Length", "100")
		}
		w.WriteHeader(http.StatusInternalServerError)
		if r.Header.Get("Mulligan-Id") != "broken-at-once" {
			_, _ = io.WriteString(w, "body")
		}
		if strings.HasPrefix(r.Header.Get("Mulligan-Id"), "broken") {
			_ = http.NewResponseController(w).Flush()
			httpReset(t, w)
		}
	})
	for _, c := range []struct{ name, id, outcome, want, errType, result string }{
		{"done", "whole", "done", "done", "", "body"},
		{"done, and the result breaks off", "broken", "done", "transient", "reset", ""},
		{"done, and the result does not come", "broken-at-once", "done", "transient", "reset", ""},
		{"changed", "whole", "changed", "changed to body", "http_500", ""},
		{"changed, and the payload breaks off", "broken", "changed", "transient", "reset", ""},
		{"changed, and the payload does not come", "broken-at-once", "changed", "transient", "reset", ""},
		{"permanent", "whole", "permanent", "permanent", "http_500", ""},
		{"permanent, and the reason breaks off", "broken", "permanent", "permanent", "http_500", ""},
		{"not started", "whole", "not-started", "not started, after 1.5s", "http_500", ""},
		{"not started, and the reason breaks off", "broken", "not-started", "not started, after 1.5s", "http_500", ""},
		{"snooze", "whole", "snooze", "snooze 1.5s", "error", ""},
	} {
		result, err := target.Handle(t.Context(), &mulligan.Job{Kind: "k", ID: c.id, Task: c.outcome})
		if httpOutcome(err) != c.want || mulligan.ErrorType(err) != c.errType || string(result) != c.result {
			t.Errorf("%s: got %q, %s of type %q (%v), want %q, %s of type %q",
				c.name, result, httpOutcome(err), mulligan.ErrorType(err), err, c.result, c.want, c.errType)
		}
	}
}
