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

// disk checks how often the server flushes, and how much room it has.
func (f *findings) disk(ctx context.Context) bool {
	if f.Monitor == "" {
		f.warn(checkFlush, "not visible from here", "give --monitor http://HOST:8222 of nats-server to check sync_interval and the room that is left")
		return true
	}
	page, err := f.monitored(ctx)
	if err != nil {
		f.warn(checkFlush, err.Error(), "give --monitor the address of nats-server's monitoring page, such as http://127.0.0.1:8222")
		return true
	}
	f.flush(page)
	f.room(page)
	return true
}

const checkFlush = "fsync"

// storage is what the monitoring page tells of JetStream.
type storage struct {
	Config struct {
		SyncInterval time.Duration `json:"sync_interval"`
		SyncAlways   bool          `json:"sync_always"`
		MaxStorage   uint64        `json:"max_storage"`
	} `json:"config"`
	Stats struct {
		Storage uint64 `json:"storage"`
	} `json:"stats"`
}

// flush checks how often the server flushes: an answer before that is lost with
// the power.
func (f *findings) flush(page storage) {
	if page.Config.SyncAlways {
		f.ok(checkFlush, "before every answer")
		return
	}
	f.warn(checkFlush, fmt.Sprintf("every %v", page.Config.SyncInterval),
		"set jetstream { sync_interval: always } in nats-server's config if an accepted job must survive a loss of power of a single server")
}

// room checks how near the server is to its limit, where it refuses jobs.
func (f *findings) room(page storage) {
	const check = "disk space"
	used, most := page.Stats.Storage>>20, page.Config.MaxStorage>>20
	detail := fmt.Sprintf("%d of %d MiB that JetStream may use", used, most)
	if used >= most-most/5 {
		f.warn(check, detail, "make room now, or raise max_file_store in nats-server's config, but keep it well below the volume: at this limit jobs are refused and purges may be too; a full volume may lose jobs that were accepted")
		return
	}
	f.ok(check, "%s; its volume must have more", detail)
}

// monitored reads the server's monitoring page.
func (f *findings) monitored(ctx context.Context) (storage, error) {
	url := strings.TrimSuffix(f.Monitor, "/") + "/varz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return storage{}, fmt.Errorf("monitoring page: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return storage{}, fmt.Errorf("monitoring page: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var page struct {
		JetStream storage `json:"jetstream"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return storage{}, fmt.Errorf("monitoring page %s: %w", url, err)
	}
	if c := page.JetStream.Config; c.SyncInterval == 0 && !c.SyncAlways {
		return storage{}, fmt.Errorf("monitoring page %s does not tell sync_interval", url)
	}
	return page.JetStream, nil
}
