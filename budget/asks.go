package budget

import "slices"

// asks are the last asks that a state in the bucket has answered. One whose answer
// was lost finds itself there, and is not counted again: while a cluster chooses a
// leader, several may be lost in a row.
type asks []string

const keptAsks = 16 // more than are under way at once of one user or task

func (a asks) have(id string) bool { return slices.Contains(a, id) }

func (a *asks) add(id string) {
	all := append(slices.Clone(*a), id)
	*a = all[max(len(all)-keptAsks, 0):]
}
