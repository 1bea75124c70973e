package conf

import "strings"

// nearest returns the one of names that s most likely means, or "". What it
// accepts is so close to a name that it cannot be part of a key.
func nearest(s string, names []string) string {
	best, bestDistance := "", 3
	for _, name := range names {
		limit := max(1, len(name)/3)
		if d := distance(strings.ToLower(s), strings.ToLower(name)); d <= limit && d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance counts the edits between a and b: a byte added, dropped, replaced,
// or two neighbours swapped. It returns a large number for lengths so far
// apart that nobody asks.
func distance(a, b string) int {
	const far = 1 << 10
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return far
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			edit := 1
			if a[i-1] == b[j-1] {
				edit = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+edit)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
