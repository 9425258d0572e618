package mulligan

// Alone lets a test hold the lock for longer than any adoption takes.
var Alone = Topology.alone

// DeleteMsg is what adopting removes a job with.
var DeleteMsg = deleteMsg
