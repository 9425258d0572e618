// Package integration has the tests across packages: real servers, real
// processes, and a crash at every step of every move.
package integration
