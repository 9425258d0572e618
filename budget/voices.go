package budget

import "time"

// voices tell what one user's calls alone say of a downstream from what others'
// say too: who spoke last, and until when it counts.
type voices struct {
	last  string // empty for nobody
	until time.Duration
}

// second notes that a call of user says it at a time, which counts until another
// time, and reports whether there is a second voice: another's that still counts.
// A call of nobody needs none.
func (v *voices) second(user string, at, until time.Duration) bool {
	alone := user != "" && (user == v.last || at >= v.until)
	v.last, v.until = user, max(v.until, until)
	return !alone
}
