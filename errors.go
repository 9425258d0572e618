package mulligan

import "errors"

// What a publisher is told. Nothing was stored, except with [ErrUnconfirmed].
var (
	// ErrUnknownKind is returned for a kind that nobody has declared.
	ErrUnknownKind = errors.New("mulligan: unknown kind")
	// ErrBadKind is returned for a kind that is not well declared.
	ErrBadKind = errors.New("mulligan: bad kind")
	// ErrBadID is returned for an ID that is too long or not text.
	ErrBadID = errors.New("mulligan: bad ID")
	// ErrBadJob is returned for any other field that cannot be stored.
	ErrBadJob = errors.New("mulligan: bad job")
	// ErrNoKey is returned for a job without an ID whose effect needs one.
	ErrNoKey = errors.New("mulligan: no idempotency key")
	// ErrKeyConflict is returned when the key belongs to another payload.
	ErrKeyConflict = errors.New("mulligan: key conflict")
	// ErrTooLarge is returned when payload and headers are over the limit.
	ErrTooLarge = errors.New("mulligan: payload too large")
	// ErrStreamFull is returned when the stream of jobs has no room.
	ErrStreamFull = errors.New("mulligan: stream full")
	// ErrNoTopology is returned when the streams do not exist.
	ErrNoTopology = errors.New("mulligan: no streams; run `mulligan provision` or start a worker that may create them")
	// ErrUnavailable is returned when the server cannot be reached, has no leader
	// for the stream of jobs, no longer has that stream, or has too many publishes
	// waiting for it. Nothing was stored: publish again, later.
	ErrUnavailable = errors.New("mulligan: server unavailable")
	// ErrUnconfirmed is returned when the server did not answer: the job may be
	// stored. Publishing it again with the same ID is safe.
	ErrUnconfirmed = errors.New("mulligan: unconfirmed")
	// ErrNotFound is returned for a dead letter that does not exist, and for the
	// result of a key of which nothing is known.
	ErrNotFound = errors.New("mulligan: not found")
	// ErrNotDone is returned for the result of a job that has not ended.
	ErrNotDone = errors.New("mulligan: not done yet")
	// ErrDead is returned for the result of a job that is spent or dead.
	ErrDead = errors.New("mulligan: dead")
)
