package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

func ExampleHTTPTarget() {
	// A mailer in any language, busy at the first attempt.
	mailer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("attempt", r.Header.Get("Mulligan-Attempt"), "with key", r.Header.Get("Idempotency-Key"))
		if r.Header.Get("Mulligan-Attempt") == "1" {
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "sent")
	}))
	defer mailer.Close()

	target := &consumer.HTTPTarget{URL: mailer.URL + "/send"}
	job := &mulligan.Job{Kind: "email.send", ID: "order-42", Payload: []byte(`{"To":"ada@example.org"}`), Attempt: 1, AttemptsMax: 4}
	_, err := target.Handle(context.Background(), job)
	var throttled *mulligan.ThrottledError
	if errors.As(err, &throttled) {
		fmt.Println("wait", throttled.Delay, "since it", err)
	}
	job.Attempt = 2
	result, err := target.Handle(context.Background(), job)
	fmt.Println(string(result), err)
	// Output:
	// attempt 1 with key email.send/order-42
	// wait 2s since it answered 503 Service Unavailable
	// attempt 2 with key email.send/order-42
	// sent <nil>
}

// An answer may say more than its status does.
func ExampleHTTPTarget_outcome() {
	mailer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Mulligan-Id") {
		case "at-night":
			w.Header().Set("Mulligan-Outcome", "snooze")
			w.Header().Set("Retry-After", "3600")
		case "to-nobody":
			w.Header().Set("Mulligan-Outcome", "permanent")
			w.Header().Set("Mulligan-Error-Type", "mailbox_closed")
		case "too-early":
			w.Header().Set("Mulligan-Outcome", "not-started")
			w.Header().Set("Retry-After", "2")
		}
	}))
	defer mailer.Close()

	kind := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}
	for _, id := range []string{"at-night", "to-nobody", "too-early", "at-noon"} {
		next, err := consumer.Rehearse(context.Background(), kind, &consumer.HTTPTarget{URL: mailer.URL}, mulligan.Job{ID: id})
		var notStarted *mulligan.NotStartedError
		fmt.Println(id, next.Verb, next.Reason, next.ErrorType, "not started:", errors.As(next.Err, &notStarted), err)
	}
	// Output:
	// at-night defer snoozed error not started: false <nil>
	// to-nobody spend permanent mailbox_closed not started: false <nil>
	// too-early retry  http_200 not started: true <nil>
	// at-noon ack   not started: false <nil>
}
