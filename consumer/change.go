package consumer

import (
	"encoding/json"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/mulligan-queue/mulligan"
)

// mergePatch returns how a payload was changed, as a JSON merge patch (RFC 7386),
// or nil where one of the two is not JSON, no such patch leads from one to the
// other, or it is too large for a record.
func mergePatch(from, to []byte) json.RawMessage {
	if !json.Valid(from) || !json.Valid(to) {
		return nil
	}
	patch, err := jsonpatch.CreateMergePatch(from, to)
	if err != nil || len(patch) > mulligan.MaxChange {
		return nil
	}
	// A merge patch cannot say everything: that a member becomes null, or what
	// changes within a list.
	if again, err := jsonpatch.MergePatch(from, patch); err != nil || !jsonpatch.Equal(again, to) {
		return nil
	}
	return patch
}
