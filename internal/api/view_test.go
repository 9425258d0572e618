package api_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
)

func TestViewOfAJob(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	failed := mulligan.Attempt{Number: 1, Run: "r1", At: at, Took: 250 * time.Millisecond, ErrorType: "timeout", Error: "too slow", Verb: mulligan.Nak, Delay: 100 * time.Millisecond}
	const history = `"history":[{"number":1,"at":"2026-01-02T03:04:05Z","took_seconds":0.25,"error_type":"timeout","error":"too slow","verb":"nak","delay_seconds":0.1}]`
	tests := []struct {
		name string
		st   mulligan.Status
		want string
	}{
		{"a job without a record has its state only", mulligan.Status{State: "queued"}, `"state":"queued","attempts":0`},
		{"a job that waits has the error it was retried for",
			mulligan.Status{State: "waiting", Record: &mulligan.Record{State: mulligan.Live, Attempts: 1, History: []mulligan.Attempt{failed},
				Move: &mulligan.Move{Verb: mulligan.Nak, ErrorType: "timeout", Error: "too slow"}}},
			`"state":"waiting","attempts":1,"error_type":"timeout","error":"too slow",` + history},
		{"a deferred job has the reason it waits for",
			mulligan.Status{State: "waiting", Record: &mulligan.Record{State: mulligan.Parked, Move: &mulligan.Move{Verb: mulligan.Defer, Reason: mulligan.NotYet}}},
			`"state":"waiting","attempts":0,"reason":"not_before"`},
		{"a job that expired has the last error before",
			mulligan.Status{State: "spent", Record: &mulligan.Record{State: mulligan.Spent, Attempts: 1, Reason: mulligan.Expired, History: []mulligan.Attempt{failed},
				Move: &mulligan.Move{Verb: mulligan.Spend, Reason: mulligan.Expired}}},
			`"state":"spent","attempts":1,"reason":"expired","error_type":"timeout","error":"too slow",` + history},
		{"a recovered job has its failure in the history only",
			mulligan.Status{State: "done", Record: &mulligan.Record{State: mulligan.Done, Attempts: 2, History: []mulligan.Attempt{failed}, Result: mulligan.NewResult([]byte("[1, 2]"), at)}},
			`"state":"done","attempts":2,"result":[1,2],"result_encoding":"json","result_size":6,` + history},
		{"what is known of its steps and changes is shown, a step's result by its size",
			mulligan.Status{State: "waiting", Record: &mulligan.Record{State: mulligan.Parked, Attempts: 1,
				Steps:   []mulligan.StepRecord{{Name: "charge", Begun: at, Run: "r", Result: mulligan.NewResult([]byte(`"secret"`), at)}, {Name: "mail", Begun: at, Run: "r"}},
				History: []mulligan.Attempt{{Number: 1, At: at, Took: time.Second, NotStarted: true, Change: json.RawMessage(`{"a":null}`)}}}},
			`"state":"waiting","attempts":1,"steps":[{"name":"charge","state":"done","at":"2026-01-02T03:04:05Z","result_size":8},{"name":"mail","state":"begun","at":"2026-01-02T03:04:05Z"}],` +
				`"history":[{"number":1,"at":"2026-01-02T03:04:05Z","took_seconds":1,"not_started":true,"change":{"a":null}}]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.st.Kind, tt.st.ID = "k", "1"
			got, err := json.Marshal(api.View(tt.st))
			if err != nil {
				t.Fatal(err)
			}
			if want := `{"kind":"k","id":"1",` + tt.want + `}`; string(got) != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// An answer with a result that is nested deeper than readers take is read.
func TestAResultIsShownSoThatItCanBeRead(t *testing.T) {
	nested := func(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }
	for _, c := range []struct{ name, data, encoding string }{
		{"JSON is a value", `{"a":[1]}`, "json"},
		{"some nesting is a value", nested(500), "json"},
		{"more is text", nested(501), "text"},
		{"as deep as the reader takes it alone", nested(10_000), "text"},
		{"deeper", nested(100_000), "text"},
		{"brackets that are text", `"` + strings.Repeat("[", 10_000) + `"`, "json"},
		{"text", "250 queued", "text"},
		{"bytes", "\xff", "base64"},
	} {
		st := mulligan.Status{Kind: "k", ID: "1", State: "done", Record: &mulligan.Record{State: mulligan.Done, Result: mulligan.NewResult([]byte(c.data), time.Now())}}
		b, err := json.Marshal(api.View(st))
		var v api.JobView
		if err == nil {
			err = json.Unmarshal(b, &v)
		}
		if err != nil || v.ResultEncoding != c.encoding {
			t.Errorf("%s: shown as %q, %v; want %s", c.name, v.ResultEncoding, err, c.encoding)
		}
	}
}

func ExampleView() {
	v := api.View(mulligan.Status{Kind: "email.send", ID: "order-42", State: mulligan.StatusDead,
		Record: &mulligan.Record{State: mulligan.Dead, Attempts: 4, Reason: mulligan.AttemptsExhausted}})
	b, _ := json.Marshal(v)
	fmt.Println(string(b))
	// Output: {"kind":"email.send","id":"order-42","state":"dead","attempts":4,"reason":"attempts_exhausted"}
}

func ExampleServer_Handler() {
	s := api.Server{Token: "s3cret"} // and, to take jobs, a connection and a publisher
	for _, path := range []string{"/healthz", "/v1/jobs/email.send/order-42"} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Println(w.Code, w.Header().Get("Content-Type"))
	}
	// Output:
	// 200 application/json
	// 401 application/problem+json
}
