//! Charts as SVG, drawn on the server. The policy forbids inline styles, so classes give the colours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: usize = 960;
const HEIGHT: usize = 156;
const FLOOR: usize = 126;
const TOP: usize = 14;

/// Stacked bars, one for each label. The series are pairs of a class and the name that the legend shows.
///
/// The texts are the caller's own words and digits; they are not escaped.
pub fn bars(title: &str, days: &BTreeMap<String, Vec<usize>>, series: &[(&str, &str)]) -> String {
    let most = days.values().map(|counts| counts.iter().sum()).max().unwrap_or(0).max(1);
    let step = WIDTH / days.len().max(1);
    let wide = (step * 3 / 5).clamp(4, 44);
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
         <line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{FLOOR}\" y2=\"{FLOOR}\"/>"
    );
    for (at, (day, counts)) in days.iter().enumerate() {
        let x = at * step + (step - wide) / 2;
        let mut y = FLOOR;
        for (count, (class, name)) in counts.iter().zip(series) {
            let high = (count * (FLOOR - TOP)).div_ceil(most);
            y = y.saturating_sub(high);
            if *count > 0 {
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{high}\"><title>{day}: {count} {name}</title></rect>"
                );
            }
        }
        let total: usize = counts.iter().sum();
        let middle = at * step + step / 2;
        if total > 0 {
            let over = y.saturating_sub(4);
            let _ = write!(svg, "<text class=\"count\" x=\"{middle}\" y=\"{over}\">{total}</text>");
        }
        let label = day.get(5..).unwrap_or(day);
        let _ = write!(svg, "<text x=\"{middle}\" y=\"{}\">{label}</text>", FLOOR + 22);
    }
    svg.push_str("</svg>");
    svg
}

/// One bar that is divided by these parts: class, name and count.
pub fn parts(title: &str, parts: &[(&str, &str, i64)]) -> String {
    let total: i64 = parts.iter().map(|(.., count)| count.max(&0)).sum::<i64>().max(1);
    let wide = i64::try_from(WIDTH).unwrap_or(i64::MAX);
    let mut svg = format!(
        "<svg class=\"strip\" viewBox=\"0 0 {WIDTH} 14\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}\">"
    );
    let _ = write!(svg, "<rect class=\"none\" x=\"0\" y=\"0\" width=\"{WIDTH}\" height=\"14\"/>");
    let mut x = 0;
    for (class, name, count) in parts.iter().filter(|(.., count)| *count > 0) {
        let width = (count.saturating_mul(wide) / total).max(2);
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"0\" width=\"{width}\" height=\"14\"><title>{count} {name}</title></rect>"
        );
        x += width;
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_bar_fills_the_chart_and_none_leaves_it() {
        let days =
            BTreeMap::from([("2026-04-17".to_owned(), vec![1, 0]), ("2026-04-18".to_owned(), vec![30, 10])]);
        let svg = bars("Calls", &days, &[("in", "inbound"), ("out", "outbound")]);
        assert!(svg.contains("<title>2026-04-18: 30 inbound</title>") && svg.contains(">04-17</text>"));
        assert!(svg.contains(&format!("y=\"{TOP}\"")), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3);
        let empty = bars("Calls", &BTreeMap::new(), &[]);
        assert!(empty.ends_with("</svg>") && !empty.contains("<rect"));
    }

    #[test]
    fn a_part_of_nothing_is_an_empty_strip() {
        assert_eq!(parts("Keys", &[("good", "used", 0)]).matches("<rect").count(), 1);
        assert!(parts("Keys", &[("good", "used", 1), ("bad", "failed", 1)]).contains("width=\"480\""));
    }
}
