// Package crash tells stories of jobs whose processes end at every point of
// every move, one after the other. It has tests only.
package crash
