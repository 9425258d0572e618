package main

// Rules can be switched off one by one. Each says what it is for: what goes
// wrong without it is shown by a test, which holds that it is needed.
type Rules struct {
	// DonePayload: a record that says done acks messages of its own payload
	// only. Any other is a key conflict, at the schedulers too; or a job that
	// never ran would be dropped.
	DonePayload bool
	// ConflictStays: the letter of a key conflict is not replayed under its key,
	// which belongs to another payload: the replay would delete it.
	ConflictStays bool
	// SpentIsEnd: a message that meets spent, not only dead, follows it to the
	// letters; or the key runs again beside its own burial.
	SpentIsEnd bool
	// OnlyReplay: spent and dead end a key of every kind until a replay; or a
	// failure recorded late would bring a pure key back to life.
	OnlyReplay bool
	// RecordReason: a message that follows an end has the record's reason, and a
	// replay looks at the record's reason, not only the letter's; or a doubt is
	// replayed by a person who was not shown it.
	RecordReason bool
	// DeadOnlySpent: the scheduler marks dead only what still says spent; or it
	// ends a key that was reopened while it was burying.
	DeadOnlySpent bool
	// CertainEnd: a message is spent for the end of its key, or buried without marking
	// it dead, only for what was stored again as it was read; or for what a server
	// tells that leads no more.
	CertainEnd bool
	// LateFollows: a failure recorded late adds its facts and leaves another's
	// start, spent and dead as they are; or it takes away the mark that kept
	// another run from beginning.
	LateFollows bool

	// SecondWaits: a message parks itself while the retry of another message of
	// its key is not yet due; or a key published again is retried before the
	// hint.
	SecondWaits bool
	// ExemptByDue: of that, a message from RETRIES is exempt only if it was to come
	// back no earlier than that retry, not because it has come back; or what
	// waited for one retry runs before the hint of the next.
	ExemptByDue bool
	// NakAgain: a message that comes back before its own nak is due is nak'd
	// again; or it is retried before the hint.
	NakAgain bool

	// FirstIsFree: what is deferred and comes back for no retry is delivered without
	// a token of the downstream; or a first attempt waits behind retries.
	FirstIsFree bool
	// RetryNeedsToken: what was delivered so and is a retry by now, since another
	// message of its key has failed meanwhile, goes to where retries wait for theirs;
	// or it runs without one.
	RetryNeedsToken bool

	// ReopenOnce: a replay that finds the record live or parked leaves it as it
	// is; or a replay repeated after a crash gives the attempts anew.
	ReopenOnce bool
	// ReopeningInID: the id of a replay's message has the name of the reopening;
	// or the server takes the second replay of a letter for the first one, and
	// stores nothing.
	ReopeningInID bool

	// Start (once): the start of every run is written before the handler is
	// called; or a crash after the effect cannot be told from one before.
	Start bool
	// StartDoubts (once): a message that finds its own start without an end is
	// spent in doubt; or it repeats the effect.
	StartDoubts bool
	// StartWaits (once): a message that finds another's start without an end
	// waits for the end; or both have their effect.
	StartWaits bool
	// StartIsOwn (once): an end clears only the start of its own run; or a run
	// that ends late takes away the mark of the run that began since.
	StartIsOwn bool

	// Settle: a success recorded over dead sends its message to the schedulers,
	// since a letter exists, instead of acking it; or the letter of a done key
	// stays.
	Settle bool
	// SettleReopened: so does a success recorded over a record that was reopened:
	// the replay may have been refused since, or a newer letter have come.
	SettleReopened bool
	// SettleID: that message has an id of its own; or the server takes it for the
	// spent message of the same address, and stores nothing.
	SettleID bool
	// DoneDeletes: a scheduler that finds the key done with this payload deletes
	// the letter of this key and payload, if there is one.
	DoneDeletes bool
	// TakeBack: a scheduler that wanted to mark dead and finds done deletes the
	// letter that it wrote.
	TakeBack bool

	// StepBegins (once): the begin of a step is written before its effect; or a
	// run that goes on cannot tell whether the effect happened.
	StepBegins bool
	// OpenDoubts (once): a step with a begin and no result is in doubt; or the
	// run that goes on repeats it.
	OpenDoubts bool
	// ResumeNeedsStep (once): only a start with a recorded step is taken over. A
	// handler without steps has none, and its effect may have happened.
	ResumeNeedsStep bool
	// StepOwnsStart (once): a step begins only while the record is live and its
	// start is this run's own, in the same compare-and-set that writes the begin.
	// That no other run has begun the step is not enough: a run that was taken
	// over, given up or resolved by a person would go on.
	StepOwnsStart bool
	// StepsStay: a replay keeps the recorded steps; or it repeats them.
	StepsStay bool
	// DoneKeepsSteps (keyed): done keeps them too; or a run that is still going on
	// when another has recorded done repeats its steps, with other results.
	DoneKeepsSteps bool
	// FirstResult (keyed): a step returns the result that was recorded first,
	// not what its own call returned; or two runs at once go on with different
	// results under one key.
	FirstResult bool
}

// allRules are the rules of the project.
func allRules() Rules {
	return Rules{
		DonePayload: true, ConflictStays: true, SpentIsEnd: true, OnlyReplay: true, RecordReason: true, DeadOnlySpent: true, CertainEnd: true, LateFollows: true,
		SecondWaits: true, ExemptByDue: true, NakAgain: true, FirstIsFree: true, RetryNeedsToken: true,
		ReopenOnce: true, ReopeningInID: true,
		Start: true, StartDoubts: true, StartWaits: true, StartIsOwn: true,
		Settle: true, SettleReopened: true, SettleID: true, DoneDeletes: true, TakeBack: true,
		StepBegins: true, OpenDoubts: true, ResumeNeedsStep: true, StepOwnsStart: true, StepsStay: true, DoneKeepsSteps: true, FirstResult: true,
	}
}
