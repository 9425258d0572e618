package storm

import (
	_ "embed"
	"fmt"
	"io"
	"math"
	"strings"
	"text/template"
	"time"
)

// The picture: a panel for each policy, all with the same axes. The colours are
// of middle lightness, so that they can be read on white and on black alike.
const (
	columns     = 2
	panelWidth  = 400.0
	panelHeight = 200.0
	plotLeft    = 40.0
	plotTop     = 40.0
	plotWidth   = panelWidth - plotLeft - 15
	plotHeight  = panelHeight - plotTop - 30
	head        = 44.0 // above the panels
	tick        = 30   // seconds
)

//go:embed storm.svg.tmpl
var svgText string

// picture is what the template of the picture says.
type picture struct {
	Title, About  string
	Width, Height float64
	Panels        []panel
}

type panel struct {
	X, Y          float64
	Title, Detail string
	From, Wide    float64 // of the fault
	Serves        float64 // the height of what the provider serves
	Attempts      string  // the points of a line
	Successes     string
	Across, Up    []mark
	Left, Right   float64
	Top, Bottom   float64
}

// Height is that of the plot.
func (p panel) Height() float64 { return p.Bottom - p.Top }

type mark struct {
	At   float64
	Text string
}

// Draw writes a picture, as SVG, of attempts and successes per second in one case,
// one panel for each report. The same reports give the same bytes.
func Draw(w io.Writer, c Case, reports []Report) error {
	t, err := template.New("storm").Parse(svgText)
	if err != nil {
		return fmt.Errorf("picture's template: %w", err)
	}
	rows := (len(reports) + columns - 1) / columns
	p := picture{
		Title:  fmt.Sprintf("%s: %s", c.Name, c.About),
		About:  fmt.Sprintf("%.0f jobs a second arrive at a provider that serves %.0f; %d workers; calls time out after %v", c.rate(), c.rate()/c.Load, c.Workers, c.Timeout),
		Width:  columns * panelWidth,
		Height: head + float64(rows)*panelHeight,
	}
	top := highest(reports)
	for i, r := range reports {
		p.Panels = append(p.Panels, c.panel(r, i, top))
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return nil
}

// highest is where the axis of rates ends.
func highest(reports []Report) float64 {
	most := 0.0
	for _, r := range reports {
		for _, s := range r.Seconds {
			most = max(most, s.Attempts, s.Successes)
		}
	}
	return max(math.Ceil(most/100), 1) * 100
}

func (c Case) panel(r Report, i int, top float64) panel {
	across := func(at time.Duration) float64 { return plotLeft + plotWidth*at.Seconds()/c.Horizon.Seconds() }
	up := func(rate float64) float64 { return plotTop + plotHeight*(1-rate/top) }
	p := panel{
		X: float64(i%columns) * panelWidth, Y: head + float64(i/columns)*panelHeight,
		Title: r.Policy, Detail: r.detail(),
		From: across(c.From), Wide: across(c.To) - across(c.From), Serves: up(c.rate() / c.Load),
		Left: plotLeft, Right: plotLeft + plotWidth, Top: plotTop, Bottom: plotTop + plotHeight,
	}
	for s := 0; s <= int(c.Horizon/time.Second); s += tick {
		p.Across = append(p.Across, mark{across(time.Duration(s) * time.Second), fmt.Sprintf("%d s", s)})
	}
	for rate := 0.0; rate <= top; rate += 100 {
		p.Up = append(p.Up, mark{up(rate), fmt.Sprintf("%.0f", rate)})
	}
	var attempts, successes strings.Builder
	for s, n := range r.Seconds {
		x := across(time.Duration(s)*time.Second + time.Second/2)
		fmt.Fprintf(&attempts, "%.1f,%.1f ", x, up(n.Attempts))
		fmt.Fprintf(&successes, "%.1f,%.1f ", x, up(n.Successes))
	}
	p.Attempts, p.Successes = strings.TrimSpace(attempts.String()), strings.TrimSpace(successes.String())
	return p
}

// detail is what a panel says in a line.
func (r Report) detail() string {
	recovers := "never recovers"
	switch {
	case r.Never > 0 && r.Never < r.Seeds:
		recovers = fmt.Sprintf("recovers in %d of %d runs", r.Seeds-r.Never, r.Seeds)
	case r.Recovery != nil:
		recovers = fmt.Sprintf("recovers in %.1f s", *r.Recovery)
	}
	return fmt.Sprintf("%.2f %% done, %.0f %% of the work wasted, %s", 100*r.Success, 100*r.Wasted, recovers)
}
