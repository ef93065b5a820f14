package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The picture is one column a contender, with two charts over the same seconds: answers
// a second, and the longest latency. Lengths are in pixels.
const (
	pictureWide = 980
	marginLeft  = 62
	columnGap   = 14
	topOfRate   = 66
	rateHigh    = 96
	topOfDelay  = 196
	delayHigh   = 130
	pictureHigh = 376

	leastDelay = 0.1   // ms, the bottom of the second chart
	mostDelay  = 20000 // ms, its top
	before     = 4.0   // seconds shown before the reload
	after      = 20.0  // and after it was asked for
)

// style is readable on light and on dark pages: the picture has a ground of its own.
const style = `<style>
.ground{fill:#fff}.frame{fill:none;stroke:#d0d7de}.grid{stroke:#d8dee4;stroke-width:.6}
text{font:11px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#57606a}.name{font-size:13px;font-weight:600;fill:#1f2328}
.answers{fill:none;stroke:#0969da;stroke-width:1.2}.failures{fill:#cf222e}.delay{fill:none;stroke:#8250df;stroke-width:1.2}
.span{fill:#9a6700;fill-opacity:.13}.asked{stroke:#9a6700;stroke-width:1.2;stroke-dasharray:3 2}
@media (prefers-color-scheme:dark){.ground{fill:#0d1117}.frame{stroke:#3d444d}.grid{stroke:#2a3038}text{fill:#9198a1}.name{fill:#f0f6fc}
.answers{stroke:#58a6ff}.failures{fill:#ff7b72}.delay{stroke:#bc8cff}.span{fill:#d29922;fill-opacity:.2}.asked{stroke:#d29922}}
</style>`

// picture draws the first run of each contender.
func picture(runs []*watched) string {
	var first []*watched
	seen := map[string]bool{}
	for _, w := range runs {
		if !seen[w.Contender] {
			seen[w.Contender] = true
			first = append(first, w)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="answers a second and longest latency around a reload">%s`,
		pictureWide, pictureHigh, style)
	fmt.Fprintf(&b, `<rect class="ground" width="%d" height="%d" rx="6"/>`, pictureWide, pictureHigh)
	text(&b, 14, 22, "start", "name", fmt.Sprintf("A reload into a version that boots %.0f s, under %d requests a second", slowBoot.Seconds(), slowRate))
	wide := (pictureWide - marginLeft - 14 - columnGap*float64(max(len(first)-1, 0))) / float64(max(len(first), 1))
	for i, w := range first {
		c := chart{&b, w, marginLeft + float64(i)*(wide+columnGap), wide}
		c.draw(i == 0)
	}
	text(&b, 14, pictureHigh-12, "start", "", "seconds since the reload was asked for; shaded: until it had ended; latency counts from the time at which a request was due; nginx has nothing to boot")
	b.WriteString("</svg>\n")
	return b.String()
}

func text(b *strings.Builder, x, y float64, anchor, class, s string) {
	if class != "" {
		class = ` class="` + class + `"`
	}
	fmt.Fprintf(b, `<text x="%.4g" y="%.4g" text-anchor="%s"%s>%s</text>`, x, y, anchor, class, strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(s))
}

// chart is one column.
type chart struct {
	*strings.Builder
	w          *watched
	left, wide float64
}

// x returns where a moment lies, seconds since the reload was asked for.
func (c *chart) x(seconds float64) float64 {
	return c.left + c.wide*(min(max(seconds, -before), after)+before)/(before+after)
}

func rateY(perSecond float64) float64 {
	return topOfRate + rateHigh*(1-min(perSecond/(1.5*slowRate), 1))
}

// delayY is logarithmic.
func delayY(d time.Duration) float64 {
	v := min(max(micros(d)/1000, leastDelay), mostDelay)
	return topOfDelay + delayHigh*(1-math.Log(v/leastDelay)/math.Log(mostDelay/leastDelay))
}

func (c *chart) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(c, `<path class="%s" d="M%.1f %.1fL%.1f %.1f"/>`, class, x1, y1, x2, y2)
}

func (c *chart) draw(labels bool) {
	w := c.w
	text(c.Builder, c.left, 44, "start", "name", w.Contender)
	text(c.Builder, c.left, 59, "start", "", fmt.Sprintf("%d failed, %d connections closed", w.Failed.Total(), w.Closed))
	for _, rate := range []float64{0, slowRate / 2, slowRate} {
		c.line("grid", c.left, rateY(rate), c.left+c.wide, rateY(rate))
		if labels {
			text(c.Builder, c.left-6, rateY(rate)+4, "end", "", fmt.Sprintf("%.0f/s", rate))
		}
	}
	for _, tick := range []struct {
		at   time.Duration
		name string
	}{{time.Millisecond, "1 ms"}, {10 * time.Millisecond, "10 ms"}, {100 * time.Millisecond, "100 ms"}, {time.Second, "1 s"}, {10 * time.Second, "10 s"}} {
		c.line("grid", c.left, delayY(tick.at), c.left+c.wide, delayY(tick.at))
		if labels {
			text(c.Builder, c.left-6, delayY(tick.at)+4, "end", "", tick.name)
		}
	}
	if labels {
		text(c.Builder, c.left, topOfRate+rateHigh+12, "start", "", "↑ answers a second (failures: red)")
		text(c.Builder, c.left, topOfDelay-5, "start", "", "↓ longest latency")
	}
	ended := c.x(w.Outcome.Took.Seconds())
	for _, f := range []struct{ top, high float64 }{{topOfRate, rateHigh}, {topOfDelay, delayHigh}} {
		fmt.Fprintf(c, `<rect class="span" x="%.1f" y="%.0f" width="%.1f" height="%.0f"/>`, c.x(0), f.top, max(ended-c.x(0), 0.5), f.high)
		c.line("asked", c.x(0), f.top, c.x(0), f.top+f.high)
		fmt.Fprintf(c, `<rect class="frame" x="%.1f" y="%.0f" width="%.1f" height="%.0f"/>`, c.left, f.top, c.wide, f.high)
	}
	for s := 0.0; s <= after; s += 5 {
		text(c.Builder, c.x(s), topOfDelay+delayHigh+14, "middle", "", fmt.Sprintf("%.0f", s))
	}
	c.curves()
}

// curves draws what happened.
func (c *chart) curves() {
	var answers, delay, failures strings.Builder
	perSecond := 1 / c.w.Width.Seconds()
	pen := "M"
	for i, b := range c.w.Bins {
		from := (time.Duration(i)*c.w.Width - c.w.Reload.From).Seconds()
		if from < -before || from > after {
			continue
		}
		x := c.x(from + c.w.Width.Seconds()/2)
		if answers.Len() == 0 {
			answers.WriteByte('M')
		} else {
			answers.WriteByte('L')
		}
		fmt.Fprintf(&answers, "%.1f %.1f", x, rateY(float64(b.Answers)*perSecond))
		if b.Failures > 0 {
			y := rateY(float64(b.Failures) * perSecond)
			fmt.Fprintf(&failures, "M%.1f %.1fh2.4V%.0fh-2.4z", x-1.2, min(y, topOfRate+rateHigh-6), float64(topOfRate+rateHigh))
		}
		if b.Worst == 0 { // no request that was due here was answered
			pen = "M"
			continue
		}
		fmt.Fprintf(&delay, "%s%.1f %.1f", pen, x, delayY(b.Worst))
		pen = "L"
	}
	fmt.Fprintf(c, `<path class="answers" d="%s"/><path class="failures" d="%s"/><path class="delay" d="%s"/>`, answers.String(), failures.String(), delay.String())
}
