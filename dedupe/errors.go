package dedupe

import "errors"

// ErrUnreadable is returned for a record that is not one of ours. Nothing is
// known of its key then, so nothing may run under it.
var ErrUnreadable = errors.New("dedupe: unreadable record")
