// Package sim lives through drawn lives of many jobs in virtual time: the real
// publishers, workers and schedulers on the real server, whose processes crash,
// freeze and lose their connection, and whose server goes down. Then it checks
// the invariants against what publishers were told, what handlers saw and what
// the streams hold. It has tests only.
//
// Reading order: scenario, TestSimulation, world.live, story.violations; README.md
// says how to repeat a life, and what the rules catch.
package sim
