package main

// safe: is payload p done, in a letter, or in a message that will be delivered?
func (c *Model) safe(s *State, p int8) bool {
	on := func(m msg) bool { return m.addr != 0 && m.pay == p }
	if s.rec.status == done && s.rec.pay == p || on(s.jobs) || on(s.letter) || s.conflicts[p] {
		return true
	}
	for _, q := range s.queues() {
		for _, m := range q {
			if on(m) {
				return true
			}
		}
	}
	return c.Kind == pure && s.succeeded[p]
}

// empty: nothing is queued.
func (s *State) empty() bool {
	return s.jobs.addr == 0 && s.at == [maxAt]msg{} && s.due == [maxDue]msg{} && s.spent == [maxDue]msg{}
}

// check returns the violations of a state, and what is worth a note. At rest
// means that only mishaps and people can change it.
func (c *Model) check(s *State, atRest bool) (found []string) {
	if s.bad != fine {
		found = append(found, s.bad.String())
	}
	if !c.safe(s, 0) {
		found = append(found, "I1: payload A is lost")
	}
	if s.accepted && !c.safe(s, 1) {
		found = append(found, "I1: payload B is lost")
	}
	if atRest {
		found = append(found, c.checkRest(s)...)
	}
	return found
}

func (c *Model) checkRest(s *State) (found []string) {
	if !s.empty() {
		found = append(found, "stuck: a message is stored and nobody will get it")
	}
	r := s.rec
	hasLetter := s.letter.addr != 0
	switch {
	case r.status == done && hasLetter && s.crash == c.Crash:
		found = append(found, "I6: a letter stays of a key that is done, and nothing crashed")
	case r.status == done && hasLetter:
		found = append(found, "note: a letter stays of a key that is done, after a crash")
	case r.status == none || r.status == done:
	case hasLetter && r.status == spent && r.pay == s.letter.pay && c.Stale > 0 && c.Replay == 0: // a replay that is refused leaves it so, too
		found = append(found, "I6: a key is buried, and its record says for ever that it will be")
	case hasLetter && r.status != dead:
		found = append(found, "note: a letter stays and the record says "+r.status.String())
	case hasLetter:
	case c.Kind == pure && s.succeeded[r.pay]:
		found = append(found, "note: the record of a pure job that succeeded stays "+r.status.String())
	default:
		found = append(found, "stuck: the record says "+r.status.String()+", and neither message nor letter is left")
	}
	return found
}
