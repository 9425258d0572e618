package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	leastMajor, leastMinor   = 2, 14 // message schedules came with it
	testedMajor, testedMinor = 2, 15
)

// server checks the version that this connection talks to.
func (f *findings) server(context.Context) bool {
	const check = "server version"
	version := f.Conn.ConnectedServerVersion()
	major, minor := parseVersion(version)
	switch {
	case major < leastMajor || major == leastMajor && minor < leastMinor:
		f.fail(check, fmt.Sprintf("nats-server %s", version), fmt.Sprintf("upgrade nats-server to %d.%d or newer", testedMajor, testedMinor))
	case major != testedMajor || minor != testedMinor:
		f.warn(check, fmt.Sprintf("nats-server %s", version), fmt.Sprintf("prefer nats-server %d.%d, which Mulligan is tested with", testedMajor, testedMinor))
	default:
		f.ok(check, "nats-server %s", version)
	}
	if c := f.Conn.MaxPayload(); c < 128<<10 {
		f.fail("max payload", fmt.Sprintf("%d bytes", c), "raise max_payload of nats-server: 64 KiB of it are kept for headers")
	}
	return true
}

// parseVersion reads 2.15.2 as 2, 15; what it cannot read is 0, 0.
func parseVersion(version string) (major, minor int) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return 0, 0
	}
	if minor, err = strconv.Atoi(parts[1]); err != nil {
		return 0, 0
	}
	return major, minor
}

// disk checks how often the server flushes: an answer before that is lost with
// the power.
func (f *findings) disk(ctx context.Context) bool {
	const (
		check = "fsync"
		do    = "set jetstream { sync_interval: always } in nats-server's config if an accepted job must survive a loss of power of a single server"
	)
	if f.Monitor == "" {
		f.warn(check, "not visible from here", "give --monitor http://HOST:8222 of nats-server to check sync_interval")
		return true
	}
	interval, always, err := f.flushes(ctx)
	switch {
	case err != nil:
		f.warn(check, err.Error(), "give --monitor the address of nats-server's monitoring page, such as http://127.0.0.1:8222")
	case always:
		f.ok(check, "before every answer")
	default:
		f.warn(check, fmt.Sprintf("every %v", interval), do)
	}
	return true
}

// flushes reads the server's monitoring page.
func (f *findings) flushes(ctx context.Context) (every time.Duration, always bool, err error) {
	url := strings.TrimSuffix(f.Monitor, "/") + "/varz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, false, fmt.Errorf("monitoring page: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false, fmt.Errorf("monitoring page: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var page struct {
		JetStream struct {
			Config struct {
				SyncInterval time.Duration `json:"sync_interval"`
				SyncAlways   bool          `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return 0, false, fmt.Errorf("monitoring page %s: %w", url, err)
	}
	c := page.JetStream.Config
	if c.SyncInterval == 0 && !c.SyncAlways {
		return 0, false, fmt.Errorf("monitoring page %s does not tell sync_interval", url)
	}
	return c.SyncInterval, c.SyncAlways, nil
}
