// Package crash tells tales of jobs whose processes end at every point of every
// move, one after the other. It has tests only.
//
// Reading order: tale, fate.lives, service.keep, book.check; README.md has the list.
package crash
