package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/testkit"
)

// pictures is a directory where TestPagesInABrowser leaves what it saw, for people.
const pictures = "PREFORKD_PICTURES"

// TestPagesInABrowser opens both pages on a narrow and a wide screen, light and dark, and
// uses their forms: nothing is reported as an error, nothing is asked of another host, nothing
// has to be scrolled sideways, and text can be told from what is behind it.
func TestPagesInABrowser(t *testing.T) {
	b := openBrowser(t)
	s := testkit.Start(t, testkit.Options{Workers: 1, Set: []string{"predict.model=digits"}})
	for _, path := range []string{"/", "/docs"} {
		for _, width := range []int{400, 1200} {
			for _, colours := range []string{"light", "dark"} {
				name := fmt.Sprintf("%s, %d wide, %s", path, width, colours)
				b.screen(width, colours)
				b.show(s.URL + path)
				b.fits(name, width)
				b.useForms(name)
				b.fits(name+", with answers", width)
				b.contrasts(name)
				if dir := os.Getenv(pictures); dir != "" {
					b.picture(filepath.Join(dir, fmt.Sprintf("page%s-%d-%s.png", strings.ReplaceAll(path, "/", "-"), width, colours)), width)
				}
			}
		}
	}
	b.quiet(s.URL)
}

// fits demands that the page is no wider than the screen, and says what is.
func (b *browser) fits(name string, width int) {
	b.t.Helper()
	var wide []string
	b.evaluate(fmt.Sprintf(`(() => {
		const root = document.documentElement;
		if (root.scrollWidth <= %d) return [];
		const wide = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > %[1]d + 1);
		return ["page of " + root.scrollWidth, ...wide.map((e) => e.tagName + " " + e.textContent.trim().slice(0, 40))];
	})()`, width), &wide)
	if len(wide) > 0 {
		b.t.Errorf("%s: wider than the screen: %q", name, wide)
	}
}

// useForms opens what is closed and sends every form that is a question, and each of POST
// /predict: it gets an answer, which the page shows as such.
func (b *browser) useForms(name string) {
	b.t.Helper()
	var answers []string
	b.evaluate(`(async () => {
		for (const d of document.querySelectorAll("details")) d.open = true;
		const forms = [...document.querySelectorAll("form")];
		for (const f of forms) f.requestSubmit();
		const shown = () => [...document.querySelectorAll("output")].map((o) => o.textContent);
		for (let i = 0; i < 1000 && shown().some((text) => text === ""); i++) await new Promise((r) => setTimeout(r, 20));
		return shown().map((text, i) => (forms[i].dataset.path || "predict") + " " + text.slice(0, 60));
	})()`, &answers)
	good := 0
	for _, text := range answers {
		switch {
		case strings.Contains(text, " HTTP 200") || strings.Contains(text, " Prediction: "):
			good++
		case !strings.Contains(text, " HTTP "):
			b.t.Errorf("%s: no answer: %s", name, text)
		}
	}
	if good == 0 || good*10 < len(answers)*6 {
		b.t.Errorf("%s: %d of %d forms are answered with success: %q", name, good, len(answers), answers)
	}
}

// contrasts demands of all text the contrast of WCAG 2.1, level AA (1.4.3).
func (b *browser) contrasts(name string) {
	b.t.Helper()
	var bad []string
	b.evaluate(`(() => {
		const parse = (text) => text.match(/[\d.]+/g).map(Number);
		const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255, v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
		const behind = (e) => {
			for (; e; e = e.parentElement) {
				const c = parse(getComputedStyle(e).backgroundColor);
				if (c.length < 4 || c[3] === 1) return c;
			}
			return [255, 255, 255];
		};
		const bad = new Set();
		for (const e of document.querySelectorAll("body *")) {
			if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length) continue;
			const text = light(parse(getComputedStyle(e).color).slice(0, 3)), back = light(behind(e).slice(0, 3));
			const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
			if (ratio < 4.5) bad.add(e.tagName + " " + e.className + " " + ratio.toFixed(2));
		}
		return [...bad];
	})()`, &bad)
	if len(bad) > 0 {
		b.t.Errorf("%s: hard to read: %q", name, bad)
	}
}

// quiet demands of everything that has happened: no error in the console but those of answers
// that a form asked for, and no request to another host.
func (b *browser) quiet(home string) {
	b.t.Helper()
	asked := 0
	for _, e := range b.events {
		var p struct {
			Type             string
			Request          struct{ URL string }
			Entry            struct{ Source, Level, Text, URL string }
			ExceptionDetails json.RawMessage
		}
		if err := json.Unmarshal(e.Params, &p); err != nil {
			b.t.Fatal(err)
		}
		switch e.Method {
		case "Network.requestWillBeSent":
			u, err := url.Parse(p.Request.URL)
			if err != nil || u.Scheme != "data" && !strings.HasPrefix(p.Request.URL, home+"/") {
				b.t.Errorf("request to %s, %v", p.Request.URL, err)
			}
			asked++
		case "Runtime.exceptionThrown":
			b.t.Errorf("exception: %s", p.ExceptionDetails)
		case "Runtime.consoleAPICalled":
			b.t.Errorf("console.%s: %s", p.Type, e.Params)
		case "Log.entryAdded":
			if p.Entry.Source != "network" || !strings.HasPrefix(p.Entry.URL, home+"/") { // a form's 4xx is logged as well
				b.t.Errorf("%s: %s %s", p.Entry.Level, p.Entry.Text, p.Entry.URL)
			}
		}
	}
	if asked < 8 {
		b.t.Errorf("%d requests were seen", asked)
	}
}
