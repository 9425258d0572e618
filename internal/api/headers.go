package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

const (
	headerKey       = "Idempotency-Key"
	headerUser      = "Mulligan-User"
	headerTask      = "Mulligan-Task"
	headerRetries   = "Mulligan-Task-Retries"
	headerDeadline  = "Mulligan-Deadline"
	headerNotBefore = "Mulligan-Not-Before"
)

// readHeaders fills job with what a request's headers say of it.
func readHeaders(job *mulligan.Job, h http.Header) error {
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return &problem{Type: "content-encoding", Status: http.StatusUnsupportedMediaType,
			Detail: "a payload travels as it is; send it without a Content-Encoding"}
	}
	// A misspelt deadline must not become none.
	known := []string{headerUser, headerTask, headerRetries, headerDeadline, headerNotBefore}
	for name := range h {
		if strings.HasPrefix(name, "Mulligan-") && !slices.Contains(known, name) {
			return fmt.Errorf("%w: unknown header %.80q; there are %s", mulligan.ErrBadJob, name, strings.Join(known, ", "))
		}
	}
	for _, name := range append(known, headerKey, "Content-Type", "Traceparent") {
		if len(h.Values(name)) > 1 {
			return fmt.Errorf("%w: header %s is sent more than once", mulligan.ErrBadJob, name)
		}
	}
	job.User, job.Task = h.Get(headerUser), h.Get(headerTask)
	job.ContentType, job.TraceParent = h.Get("Content-Type"), h.Get("Traceparent")
	var err error
	if job.ID, err = readKey(h); err != nil {
		return err
	}
	if s := h.Get(headerRetries); s != "" {
		if job.TaskRetries, err = strconv.Atoi(s); err != nil {
			return fmt.Errorf("%w: header %s %.40q is not a whole number", mulligan.ErrBadJob, headerRetries, s)
		}
	}
	if job.Deadline, err = readMoment(h, headerDeadline); err != nil {
		return err
	}
	job.NotBefore, err = readMoment(h, headerNotBefore)
	return err
}

// readKey returns the idempotency key: as it is, or out of the double quotes
// that draft-ietf-httpapi-idempotency-key-header puts around it. A key that is
// there but empty is an error: its sender meant to send one.
func readKey(h http.Header) (string, error) {
	values := h.Values(headerKey)
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if strings.HasPrefix(key, `"`) {
		var err error
		if key, err = unquote(key); err != nil {
			return "", err
		}
	}
	if key == "" {
		return "", fmt.Errorf("%w: header %s is empty", mulligan.ErrBadID, headerKey)
	}
	return key, nil
}

// unquote reads a String of RFC 9651, without regard to parameters after it.
func unquote(s string) (string, error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if rest := strings.TrimLeft(s[i+1:], " "); rest != "" && rest[0] != ';' {
				return "", badQuotes(s)
			}
			return b.String(), nil
		case c == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		case c == '\\' || c < ' ' || c > '~':
			return "", badQuotes(s)
		default:
			b.WriteByte(c)
		}
	}
	return "", badQuotes(s)
}

func badQuotes(s string) error {
	return fmt.Errorf("%w: header %s %.80q is not a quoted string of printable ASCII; send other text without quotes", mulligan.ErrBadID, headerKey, s)
}

// readMoment reads a header that has a time, or a duration from now.
func readMoment(h http.Header, name string) (time.Time, error) {
	s := h.Get(name)
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%w: header %s %.40q is neither a time such as 2006-01-02T15:04:05Z nor a duration such as 90s", mulligan.ErrBadJob, name, s)
	}
	return t, nil
}
