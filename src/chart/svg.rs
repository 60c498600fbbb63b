//! The drawing itself. Colours are told apart with any kind of colour blindness (blue and vermilion), and by dashes.

use std::fmt::Write as _;

use super::scale::{clock, instants, steps};
use super::{Chart, HEIGHT, Role, WIDTH};
use crate::domain::time::Timestamp;

const LEFT: f64 = 58.0;
const RIGHT: f64 = 466.0;
const TOP: f64 = 94.0;
const BOTTOM: f64 = 212.0;

const OLD: &str = "#0060a8";
const NEW: &str = "#c8500a";
const THIRD: &str = "#00795c";
const FOURTH: &str = "#8a3f86";
const BAND: &str = "#cfe3f3";
const INK: &str = "#1f2328";
const GREY: &str = "#59636e";

/// Of a name or title so much is drawn.
const NAME_CHARS: usize = 24;

/// A letter's width by its size, on the safe side.
const LETTER: f64 = 0.6;

/// A gap of so many usual distances is a gap.
const GAP: f64 = 3.5;

pub fn draw(chart: &Chart) -> String {
    let mut out = String::new();
    let frame = Frame { chart, top: chart.top() * 1.12, seconds: chart.to.since(chart.from).as_secs_f64().max(1.0) };
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"DejaVu Sans, sans-serif\" role=\"img\"><title>{}</title>\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\" class=\"p\"/>",
        text(&chart.words(), 400),
        WIDTH - 1,
        HEIGHT - 1
    );
    label(&mut out, 16.0, 25.0, 15.0, INK, "start", &text(&chart.title, 60));
    frame.legend(&mut out);
    frame.band(&mut out);
    frame.axes(&mut out);
    frame.limit(&mut out);
    frame.marks(&mut out);
    frame.lines(&mut out);
    out.push_str("</svg>");
    out
}

/// Escaped, bounded, one line.
fn text(raw: &str, max: usize) -> String {
    let mut out = String::new();
    for c in raw.chars().take(max) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// `said` is escaped already.
fn label(out: &mut String, x: f64, y: f64, size: f64, colour: &str, anchor: &str, said: &str) {
    // A page has its own colours for its dark mode.
    let class = if colour == INK { "i" } else { "g" };
    let _ = write!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{colour}\" text-anchor=\"{anchor}\" class=\"{class}\">{said}</text>"
    );
}

struct Frame<'a> {
    chart: &'a Chart,
    top: f64,
    seconds: f64,
}

impl Frame<'_> {
    fn x(&self, at: Timestamp) -> f64 {
        let share = at.since(self.chart.from).as_secs_f64() / self.seconds;
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (value / self.top).clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    fn legend(&self, out: &mut String) {
        const SIZE: f64 = 12.0;
        let (mut x, mut y) = (16.0, 44.0);
        let mut entry = |out: &mut String, key: &dyn Fn(f64, f64) -> String, said: String| {
            let wide = 24.0 + said.chars().count() as f64 * SIZE * LETTER;
            if x > 16.0 && x + wide > RIGHT {
                (x, y) = (16.0, y + 16.0);
            }
            out.push_str(&key(x, y - 4.0));
            label(out, x + 24.0, y, SIZE, INK, "start", &text(&said, NAME_CHARS + 20));
            x += wide + 12.0;
        };
        for line in self.chart.lines.iter().filter(|line| !line.points.is_empty()) {
            let (colour, dash) = style(line.role);
            let name: String = line.name.chars().take(NAME_CHARS).collect();
            let key = |x: f64, y: f64| {
                format!(
                    "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"2.5\"{dash}/>",
                    x + 18.0
                )
            };
            entry(out, &key, name);
        }
        if let Some(limit) = self.limit_shown() {
            let key = |x: f64, y: f64| {
                format!(
                    "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{INK}\" stroke-width=\"1.5\" stroke-dasharray=\"2 3\" class=\"k\"/>",
                    x + 18.0
                )
            };
            entry(out, &key, format!("limit {}", self.chart.unit.show(limit)));
        }
        if self.chart.band.is_some() {
            let key = |x: f64, y: f64| {
                format!(
                    "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"18\" height=\"12\" fill=\"{BAND}\" class=\"b\"/>",
                    y - 6.0
                )
            };
            entry(out, &key, "recorded normal".to_owned());
        }
    }

    fn limit_shown(&self) -> Option<f64> {
        self.chart.limit.filter(|limit| limit.is_finite())
    }

    fn band(&self, out: &mut String) {
        let Some(band) = self.chart.band else { return };
        let (high, low) = (self.y(band.high), self.y(band.low));
        let _ = write!(
            out,
            "<rect x=\"{LEFT}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{BAND}\" class=\"b\"/>",
            RIGHT - LEFT,
            (low - high).max(1.5)
        );
    }

    fn axes(&self, out: &mut String) {
        for value in steps(self.top, 4.0) {
            let y = self.y(value);
            let _ = write!(
                out,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#d8dee4\" stroke-width=\"1\" class=\"l\"/>"
            );
            label(out, LEFT - 7.0, y + 4.0, 11.0, GREY, "end", &text(&self.chart.unit.beside_axis(value), 20));
        }
        for at in instants(self.chart.from, self.chart.to) {
            let x = self.x(at);
            let _ = write!(
                out,
                "<line x1=\"{x:.1}\" y1=\"{BOTTOM}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"{GREY}\" stroke-width=\"1\" class=\"m\"/>",
                BOTTOM + 4.0
            );
            // The last label makes room for the zone.
            if x < RIGHT - 20.0 {
                label(out, x, BOTTOM + 17.0, 11.0, GREY, "middle", &clock(at));
            }
        }
        let date: String = self.chart.from.to_string().chars().take(10).collect();
        label(out, LEFT, BOTTOM + 32.0, 11.0, GREY, "start", &format!("{date}, UTC"));
    }

    fn limit(&self, out: &mut String) {
        let Some(limit) = self.limit_shown() else { return };
        let y = self.y(limit);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"{INK}\" stroke-width=\"1.5\" stroke-dasharray=\"2 3\" class=\"k\"/>"
        );
    }

    /// Names above the plot, in two rows where they would meet.
    fn marks(&self, out: &mut String) {
        const SIZE: f64 = 11.0;
        let mut ends = [f64::MIN; 2];
        let mut names = String::new();
        let mut marks: Vec<_> = self.chart.marks.iter().collect();
        marks.sort_by_key(|mark| mark.at);
        for mark in marks.into_iter().filter(|m| m.at >= self.chart.from && m.at <= self.chart.to) {
            let x = self.x(mark.at);
            let width = mark.name.chars().count() as f64 * SIZE * LETTER;
            let flipped = x + width + 4.0 > RIGHT;
            let (begin, end) = if flipped { (x - width - 4.0, x) } else { (x, x + width + 4.0) };
            // Where neither row has room the mark goes without its name; the words have it.
            let row = ends.iter().position(|taken| begin >= *taken);
            let y = row.map_or(TOP, |row| TOP - 6.0 - 12.0 * row as f64);
            let _ = write!(
                out,
                "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\" stroke=\"{GREY}\" stroke-width=\"1\" class=\"m\" stroke-dasharray=\"5 3\"/>",
                y - 8.0
            );
            if let Some(row) = row {
                ends[row] = end + 6.0;
                let (at, anchor) = if flipped { (x - 3.0, "end") } else { (x + 3.0, "start") };
                label(&mut names, at, y, SIZE, INK, anchor, &text(&mark.name, NAME_CHARS));
            }
        }
        // Over the lines of their neighbours, with some paper around each letter.
        let _ = write!(
            out,
            "<g class=\"w\" stroke=\"#ffffff\" stroke-width=\"4\" stroke-linejoin=\"round\" paint-order=\"stroke\">{names}</g>"
        );
    }

    fn lines(&self, out: &mut String) {
        for line in &self.chart.lines {
            let (colour, dash) = style(line.role);
            let points: Vec<(Timestamp, f64)> = line
                .points
                .iter()
                .copied()
                .filter(|(at, value)| *at >= self.chart.from && *at <= self.chart.to && value.is_finite())
                .collect();
            let gap = usual_distance(&points) * GAP;
            let mut path = String::new();
            let mut last: Option<Timestamp> = None;
            for (at, value) in &points {
                let joined = last.is_some_and(|last| at.since(last).as_secs_f64() <= gap);
                let _ = write!(path, "{}{:.1} {:.1}", if joined { "L" } else { "M" }, self.x(*at), self.y(*value));
                last = Some(*at);
            }
            if let [(at, value)] = points.as_slice() {
                let _ = write!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    self.x(*at),
                    self.y(*value)
                );
            } else if !path.is_empty() {
                let _ = write!(
                    out,
                    "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\" stroke-linejoin=\"round\"{dash}/>"
                );
            }
        }
    }
}

fn style(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Old => (OLD, " stroke-dasharray=\"7 3\" class=\"o\""),
        Role::New => (NEW, " class=\"n\""),
        Role::Part(0) => (OLD, " stroke-dasharray=\"7 3\" class=\"o\""),
        Role::Part(1) => (THIRD, " stroke-dasharray=\"2 3\" class=\"t\""),
        Role::Part(_) => (FOURTH, " stroke-dasharray=\"9 3 2 3\" class=\"f\""),
    }
}

/// The median distance of neighbours, in seconds.
fn usual_distance(points: &[(Timestamp, f64)]) -> f64 {
    let mut all: Vec<f64> = points.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_secs_f64()).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(1.0)
}
