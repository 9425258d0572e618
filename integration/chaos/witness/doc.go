// Package witness has the roles of the chaos run, which are not the program's,
// and the checker that does not trust the program. Publishers, the downstream
// and the operator write down what they were told and what they saw before they
// act on it; [Gather] reads that, and what the streams hold in the end; [Check]
// compares the two. Of the program it uses what reads its formats, never what
// judges.
package witness
