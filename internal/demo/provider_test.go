package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// keyOf returns a key that the zero seed treats as asked.
func keyOf(t *testing.T, want func(f fate) bool) string {
	t.Helper()
	for n := range 10_000 {
		key := fmt.Sprintf("%s/order-%d", Send, n)
		if want(fateOf(0, key)) {
			return key
		}
	}
	t.Fatal("no key has this fate")
	return ""
}

// post returns the status and body; the status is 0 if there was no answer.
func post(t *testing.T, url, key, body string) (int, string, http.Header) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		// As the HTTP target writes it: a client repeats others by itself.
		req.Header["idempotency-key"] = []string{key}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

const letter = `{"to":"ada@example.org","text":"hello"}`

func TestProviderTreatsAKeyAsItsFateSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		fate     func(f fate) bool
		statuses []int // of calls in turn; 0 is no answer
		want     Stats
	}{
		{"a good key works at once, and again with the same answer", func(f fate) bool { return f == fate{} }, []int{200, 200}, Stats{Calls: 2, Effects: 1, Repeats: 1}},
		{"a key that fails once works then", func(f fate) bool { return f.failures == 1 }, []int{500, 200}, Stats{Calls: 2, Effects: 1}},
		{"a key that fails twice works then", func(f fate) bool { return f.failures == 2 }, []int{500, 500, 200, 200}, Stats{Calls: 4, Effects: 1, Repeats: 1}},
		{"a throttled key works then", func(f fate) bool { return f.throttled == 1 }, []int{429, 200}, Stats{Calls: 2, Effects: 1}},
		{"a lost answer is given again, and the work is not", func(f fate) bool { return f.lost == 1 }, []int{0, 200}, Stats{Calls: 2, Effects: 1, Repeats: 1}},
		{"a bad key never works", func(f fate) bool { return f.refused }, []int{400, 400}, Stats{Calls: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &Provider{Hang: time.Millisecond}
			s := httptest.NewServer(p)
			t.Cleanup(s.Close)
			key := keyOf(t, c.fate)
			for call, want := range c.statuses {
				if got, body, _ := post(t, s.URL+"/send", key, letter); got != want {
					t.Errorf("call %d: got %d %s, want %d", call+1, got, body, want)
				}
			}
			if got := p.Stats(); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestProviderRefusesWhatIsNoJob(t *testing.T) {
	t.Parallel()
	p := new(Provider)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	good := keyOf(t, func(f fate) bool { return f == fate{} })
	for _, c := range []struct {
		name, path, key, body string
		want                  int
		says                  string
	}{
		{"a mail", "/send", good, letter, 200, "ada@example.org"},
		{"a completion", "/complete", good + "7", `{"prompt":"Once"}`, 200, "Once"},
		{"another path", "/", good, letter, 404, "/send"},
		{"no key", "/send", "", letter, 400, "Idempotency-Key"},
		{"a mail to nobody", "/send", "a", `{"to":"ada@example.invalid"}`, 400, "nobody"},
		{"a mail without an address", "/send", "b", `{}`, 400, "send {"},
		{"a prompt that is no JSON", "/complete", "c", `Once`, 400, "send {"},
		{"a body that is too large", "/send", "d", strings.Repeat("x", maxBody+1), 400, "body"},
	} {
		got, body, _ := post(t, s.URL+c.path, c.key, c.body)
		if got != c.want || !strings.Contains(body, c.says) {
			t.Errorf("%s: got %d %s, want %d and %q", c.name, got, body, c.want, c.says)
		}
	}
}

func TestProviderThrottlesForAShortWhile(t *testing.T) {
	t.Parallel()
	for wait, want := range map[int]string{200: " 200", 1000: "1 "} {
		h := http.Header{}
		fate{wait: wait}.throttle(h)
		if got := h.Get("Retry-After") + " " + h.Get("Retry-After-Ms"); got != want {
			t.Errorf("wait %d ms: got %q, want %q", wait, got, want)
		}
	}
}

func TestProviderSharesOutFates(t *testing.T) {
	t.Parallel()
	const keys = 20_000
	var good, failing, throttled, lost, refused, other int
	for n := range keys {
		key := fmt.Sprintf("email.send/order-%d", n)
		f := fateOf(1, key)
		if f != fateOf(1, key) {
			t.Fatalf("key %s has two fates", key)
		}
		if f != fateOf(2, key) {
			other++
		}
		switch {
		case f.refused:
			refused++
		case f.lost > 0:
			lost++
		case f.throttled > 0:
			throttled++
		case f.failures > 0:
			failing++
		default:
			good++
		}
	}
	for _, c := range []struct {
		name          string
		got, per, off int // off is what chance may add or take, in thousandths
	}{
		{"work at once", good, 700, 20}, {"fail first", failing, 200, 15}, {"are throttled", throttled, 50, 8},
		{"lose an answer", lost, 30, 6}, {"are refused", refused, 20, 5},
	} {
		if per := c.got * 1000 / keys; per < c.per-c.off || per > c.per+c.off {
			t.Errorf("%d of 1000 keys %s, want about %d", per, c.name, c.per)
		}
	}
	if other == 0 {
		t.Error("another seed changes nothing")
	}
}

func TestProviderDoesAKeyOnceForManyAtATime(t *testing.T) {
	t.Parallel()
	p := new(Provider)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	key := keyOf(t, func(f fate) bool { return f == fate{} })
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got, body, _ := post(t, s.URL+"/send", key, letter); got != 200 {
				t.Errorf("got %d %s, want 200", got, body)
			}
		})
	}
	all.Wait()
	if got, want := p.Stats(), (Stats{Calls: 20, Effects: 1, Repeats: 19}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestProviderForgetsTheOldestKey(t *testing.T) {
	t.Parallel()
	p := new(Provider)
	for n := range keysKept + 10 {
		p.remember(fmt.Sprint(n))
	}
	if len(p.keys) != keysKept || p.keys["9"] != nil || p.keys["10"] == nil {
		t.Errorf("got %d keys, want %d without the first ten", len(p.keys), keysKept)
	}
}

func TestProviderEndsWhileAnAnswerHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{Hang: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Serve(ctx, l) }()
	key := keyOf(t, func(f fate) bool { return f.lost > 0 })
	// Of two calls one is the first, which hangs; the other gets its answer.
	answered := make(chan int)
	for range 2 {
		go func() {
			status, _, _ := post(t, "http://"+l.Addr().String()+"/send", key, letter)
			answered <- status
		}()
	}
	if status := <-answered; status != http.StatusOK {
		t.Errorf("got answer %d, want the one that was lost", status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want no error", err)
	}
	if status := <-answered; status != 0 {
		t.Errorf("got answer %d, want none", status)
	}
}
