//! Charts: grouped bars as SVG, readable on a light and on a dark page.

use std::fmt::Write as _;

use crate::side::{Engine, Side};

const WIDTH: f64 = 860.0;
/// The width to the left of the bars, for the names of the groups.
const NAMES: f64 = 170.0;
/// The width to the right of the longest bar, for its number.
const FIGURE: f64 = 90.0;
/// The height above the bars, for the title, the subtitle and the legend.
const HEAD: f64 = 92.0;
const BAR: f64 = 15.0;
const BAR_GAP: f64 = 3.0;
const GROUP_GAP: f64 = 18.0;
/// The height below the bars, for the scale.
const FOOT: f64 = 34.0;

/// Text and lines have the colour that suits the page. The bars contrast with both backgrounds.
const STYLE: &str = "\
    text { font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2937 } \
    .title { font-size: 16px; font-weight: 600 } .quiet { fill: #6b7280 } .line { stroke: #d1d5db; stroke-width: 1 } \
    @media (prefers-color-scheme: dark) { \
    text { fill: #e5e7eb } .quiet { fill: #9ca3af } .line { stroke: #374151 } }";

/// One bar: its value, and the part of the value that is the database's.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// The server that the bar belongs to.
    pub side: Side,
    /// The whole value, in the unit of the chart.
    pub value: f64,
    /// The part of the value that is drawn in a faint colour.
    pub faint: f64,
}

pub struct Chart {
    pub title: String,
    /// The line below the title: the quantity and its unit.
    pub subtitle: String,
    /// The names of the groups, each with its bars.
    pub groups: Vec<(String, Vec<Bar>)>,
}

const fn colour(side: Side) -> &'static str {
    match side {
        Side::Ward(Engine::Sqlite) => "#0d9488",
        Side::Ward(Engine::Postgres) => "#3b82f6",
        Side::Peer(Engine::Sqlite) => "#f59e0b",
        Side::Peer(Engine::Postgres) => "#ef6c3e",
        Side::Shortcut(Engine::Sqlite) => "#fcd34d",
        Side::Shortcut(Engine::Postgres) => "#fda58a",
        Side::Fixed => "#a78bfa",
        Side::Bare => "#8b95a5",
        Side::Raw(Engine::Sqlite) => "#5ec4b8",
        Side::Raw(Engine::Postgres) => "#93bdf9",
    }
}

impl Chart {
    /// The chart as the text of an SVG file.
    pub fn svg(&self) -> String {
        let bars: usize = self.groups.iter().map(|(_, bars)| bars.len()).sum();
        let body = count(bars) * (BAR + BAR_GAP) + count(self.groups.len()) * GROUP_GAP;
        let height = HEAD + body + FOOT;
        let values = self.groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.value);
        let step = step(values.clone().fold(0.0, f64::max));
        let most = (values.fold(0.0, f64::max) / step).ceil().max(1.0) * step;
        let scale = (WIDTH - NAMES - FIGURE) / most;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <text class=\"title\" x=\"0\" y=\"18\">{title}</text>\n<text class=\"quiet\" x=\"0\" y=\"38\">{subtitle}</text>\n",
            title = escaped(&self.title),
            subtitle = escaped(&self.subtitle),
        );
        self.legend(&mut svg);
        let bottom = HEAD + body;
        let mut mark = 0.0;
        while mark <= most + step / 2.0 {
            let x = NAMES + mark * scale;
            put(
                &mut svg,
                &format!(
                    "<line class=\"line\" x1=\"{x:.1}\" y1=\"{HEAD}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\n\
                     <text class=\"quiet\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                    bottom + 18.0,
                    figure(mark)
                ),
            );
            mark += step;
        }
        let mut y = HEAD + GROUP_GAP / 2.0;
        for (name, bars) in &self.groups {
            let middle = y + count(bars.len()) * (BAR + BAR_GAP) / 2.0 + 4.0;
            let name = escaped(name);
            put(&mut svg, &format!("<text x=\"0\" y=\"{middle:.1}\">{name}</text>\n"));
            for bar in bars {
                draw(&mut svg, *bar, y, scale);
                y += BAR + BAR_GAP;
            }
            y += GROUP_GAP;
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Draws the legend, in at most two rows.
    fn legend(&self, svg: &mut String) {
        let used = |side: &Side| self.groups.iter().any(|(_, bars)| bars.iter().any(|bar| bar.side == *side));
        let (mut x, mut y) = (0.0, 52.0);
        for side in Side::ALL.into_iter().filter(used) {
            let width = 30.0 + 6.6 * count(side.name().len());
            if x + width > WIDTH {
                (x, y) = (0.0, y + 18.0);
            }
            put(
                svg,
                &format!(
                    "<rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{}\"/>\n\
                     <text x=\"{:.0}\" y=\"{:.0}\">{}</text>\n",
                    colour(side),
                    x + 17.0,
                    y + 10.5,
                    escaped(side.name())
                ),
            );
            x += width;
        }
    }
}

fn draw(svg: &mut String, bar: Bar, y: f64, scale: f64) {
    let colour = colour(bar.side);
    let (solid, whole) = ((bar.value - bar.faint) * scale, (bar.value * scale).max(1.0));
    if bar.faint > 0.0 {
        put(
            svg,
            &format!(
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\" opacity=\"0.4\"/>\n",
                NAMES + solid,
                whole - solid
            ),
        );
    }
    let solid = if bar.faint > 0.0 { solid.max(1.0) } else { whole };
    put(
        svg,
        &format!(
            "<rect x=\"{NAMES}\" y=\"{y:.1}\" width=\"{solid:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            NAMES + whole + 6.0,
            y + BAR - 3.5,
            figure(bar.value)
        ),
    );
}

/// Writing to a string cannot fail.
fn put(svg: &mut String, text: &str) {
    let _ = svg.write_str(text);
}

/// A round step that divides the scale into four to eight parts.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

/// The number with as many digits as are significant.
pub fn figure(value: f64) -> String {
    if value > 0.0 && value < 10.0 && value.fract() > 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(clippy::cast_precision_loss, reason = "a number of bars")]
const fn count(of: usize) -> f64 {
    of as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_grouped_by_three_digits() {
        let shown = [0.0, 7.25, 12.5, 999.0, 1000.0, 1_234_567.0].map(figure);
        assert_eq!(shown, ["0", "7.2", "12", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn steps_are_round() {
        let found = [9.0, 1_000.0, 42_000.0, 0.3].map(step);
        for (found, expected) in found.into_iter().zip([2.0, 200.0, 10_000.0, 0.1]) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn every_bar_has_its_length_and_its_figure() {
        let side = Side::Ward(Engine::Sqlite);
        let bars =
            vec![Bar { side, value: 100.0, faint: 0.0 }, Bar { side: Side::Bare, value: 50.0, faint: 25.0 }];
        let chart = Chart {
            title: "a < b".to_owned(),
            subtitle: String::new(),
            groups: vec![("x".to_owned(), bars)],
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"), "{svg}");
        assert!(svg.contains("width=\"600.0\""), "{svg}");
        assert_eq!(svg.matches("width=\"150.0\"").count(), 2, "{svg}");
        assert!(svg.contains(">100<") && svg.contains(">50<"), "{svg}");
    }
}
