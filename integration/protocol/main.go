// Command protocol explores, exhaustively within small bounds, the moves by
// which the workers, the schedulers and the people who replay letters take the
// messages of one key from stream to stream. See the README beside it.
package main

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
)

func main() {
	c := Model{Rules: allRules()}
	kinds := flag.Int("kind", -1, "0 pure, 1 keyed, 2 once, -1 each")
	flag.IntVar(&c.Steps, "steps", 0, "steps of the handler, 0 or 2")
	flag.IntVar(&c.Schedulers, "schedulers", 1, "at most 2")
	flag.BoolVar(&c.Runs, "runs", false, "count runs")
	for _, b := range []struct {
		to    *int8
		name  string
		value int8
		says  string
	}{
		{&c.Attempts, "attempts", 2, "of one life"},
		{&c.Starts, "starts", 2, "without an end"},
		{&c.Crash, "crash", 1, "crashes at most"},
		{&c.Slow, "slow", 1, "redeliveries while the holder still runs, at most"},
		{&c.Publish, "publish", 1, "publishes of the same key again, at most"},
		{&c.Replay, "replay", 0, "replays and answers to doubts, at most"},
		{&c.Stale, "stale", 0, "servers that lead no more and have not noticed, at most"},
		{&c.Snooze, "snooze", 0, "deferrals of a handler without steps, at most"},
	} {
		*b.to = b.value
		flag.Func(b.name, b.says, func(s string) error { _, err := fmt.Sscan(s, b.to); return err })
	}
	limit := flag.Int("limit", 20_000_000, "states")
	live := flag.Bool("live", false, "look for livelocks")
	traces := flag.Bool("traces", true, "print the shortest trace of each finding")
	without := flag.String("without", "", "rules to switch off, with commas; each switches off one at a time")
	flag.Parse()
	if c.Steps != 0 && c.Steps != maxSteps || c.Schedulers < 1 || c.Schedulers > 2 {
		fmt.Fprintln(os.Stderr, "protocol: -steps is 0 or 2, -schedulers 1 or 2")
		os.Exit(2)
	}
	failed := false
	for k := pure; k <= once; k++ {
		if *kinds >= 0 && k != kind(*kinds) {
			continue
		}
		for _, off := range each(*without) {
			m := c
			m.Kind = k
			if err := m.switchOff(off); err != nil {
				fmt.Fprintln(os.Stderr, "protocol:", err)
				os.Exit(2)
			}
			began := time.Now()
			x := m.Explore(*limit, *live, false)
			fmt.Printf("== %v, without [%s], %v\n", k, off, time.Since(began).Round(time.Millisecond))
			x.Print(os.Stdout, *traces)
			failed = failed || len(x.Violations()) > 0 || !x.Full
		}
	}
	if failed {
		os.Exit(1)
	}
}

// each splits the flag without into what to switch off in each exploration.
func each(without string) []string {
	if without != "each" {
		return []string{without}
	}
	return ruleNames()
}

func ruleNames() (names []string) {
	t := reflect.TypeFor[Rules]()
	for i := range t.NumField() {
		names = append(names, t.Field(i).Name)
	}
	return names
}

// switchOff switches off the rules named, with commas between.
func (c *Model) switchOff(names string) error {
	for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' }) {
		rule := reflect.ValueOf(&c.Rules).Elem().FieldByName(name)
		if !rule.IsValid() {
			return fmt.Errorf("there is no rule %s", name)
		}
		rule.SetBool(false)
	}
	return nil
}
