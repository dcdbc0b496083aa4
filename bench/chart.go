package bench

import (
	"fmt"
	"html"
	"strings"
)

const (
	chartWidth  = 860
	chartLabels = 300
	chartBars   = 400
	chartRow    = 18
)

// colours of contenders, by what their names begin with.
var colours = []struct{ begins, colour string }{
	{weftName, "#1f6feb"}, {tunedName, "#8c959f"}, {defaultName, "#c0c5cb"}, {ovsName, "#d29922"}, {"", "#57606a"},
}

func colourOf(contender string) string {
	for _, c := range colours {
		if strings.HasPrefix(contender, c.begins) {
			return c.colour
		}
	}
	return "black"
}

// chart draws medians as bars and the range from least to most as a line, a block for each Series.
func chart(title string, all []Series) string {
	rows := 0
	for _, s := range all {
		rows += len(s.Rows) + 2
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", chartWidth, 40+rows*chartRow)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="10" y="22" font-size="15" font-weight="bold">%s</text>`+"\n", html.EscapeString(title))
	y := 40
	for _, s := range all {
		better := "less is better"
		if s.Higher {
			better = "more is better"
		}
		fmt.Fprintf(&b, `<text x="10" y="%d" font-weight="bold">%s</text><text x="%d" y="%d" fill="#57606a">%s, %s</text>`+"\n",
			y+13, html.EscapeString(s.Measure), chartLabels+chartBars/2, y+13, html.EscapeString(s.Unit), better)
		y += chartRow
		most := 0.0
		for _, row := range s.Rows {
			most = max(most, row.Max)
		}
		for _, row := range s.Rows {
			x := func(v float64) float64 { return chartLabels + v/most*chartBars }
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="12" fill="%s"/>`,
				chartLabels-8, y+13, html.EscapeString(row.Contender), chartLabels, y+3, x(row.Median)-chartLabels, colourOf(row.Contender))
			fmt.Fprintf(&b, `<path d="M%.1f %dH%.1f" stroke="black"/><text x="%.1f" y="%d">%.4g (%.2fx)</text>`+"\n",
				x(row.Min), y+9, x(row.Max), x(row.Max)+6, y+13, row.Median, row.Ratio)
			y += chartRow
		}
		y += chartRow
	}
	b.WriteString("</svg>\n")
	return b.String()
}
