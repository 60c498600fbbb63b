//! Charts: one signal over time with its normal, its limit and what happened. Numbers in; SVG, PNG, a line of blocks or
//! words out. No clock, no files: what is drawn is an argument.

#[cfg(feature = "charts")]
mod png;
mod scale;
mod svg;

use crate::domain::time::Timestamp;
use scale::clock;

/// Size in CSS pixels; the picture has twice as many. Narrow, so that its letters can still be read on a telephone.
pub const WIDTH: u32 = 480;
pub const HEIGHT: u32 = 250;

#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub title: String,
    pub unit: Unit,
    pub from: Timestamp,
    pub to: Timestamp,
    pub lines: Vec<Line>,
    pub band: Option<Band>,
    pub limit: Option<f64>,
    pub marks: Vec<Mark>,
}

/// What values are: shares of one, seconds, or the operator's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Values are shares of one.
    Percent,
    /// Values are seconds.
    Milliseconds,
    /// Values are powers of ten: 3 is one in a thousand.
    OneIn,
    Plain,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: String,
    pub role: Role,
    /// In the order of time.
    pub points: Vec<(Timestamp, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Old,
    New,
    /// One of what `New` is made of.
    Part(u8),
}

/// Where most of the recorded normal lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    pub low: f64,
    pub high: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub at: Timestamp,
    pub name: String,
}

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Columns of a line of blocks: it fits beside its numbers on a narrow terminal.
const COLUMNS: usize = 40;

impl Chart {
    pub fn svg(&self) -> String {
        svg::draw(self)
    }

    /// `None` where flipback was built without pictures, or one cannot be made.
    #[cfg(feature = "charts")]
    pub fn png(&self) -> Option<Vec<u8>> {
        png::render(&self.svg())
    }

    #[cfg(not(feature = "charts"))]
    pub fn png(&self) -> Option<Vec<u8>> {
        None
    }

    /// The highest value that is shown: of the lines, the limit or the band; never zero.
    fn top(&self) -> f64 {
        let values = self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let others = [self.limit, self.band.map(|band| band.high)].into_iter().flatten();
        let top = values.chain(others).filter(|value| value.is_finite()).fold(0.0, f64::max);
        if top > 0.0 { top } else { 1.0 }
    }

    /// What it shows, for those who do not see it.
    pub fn words(&self) -> String {
        let mut words = vec![format!("{}, {} to {} UTC", self.title, clock(self.from), clock(self.to))];
        for line in &self.lines {
            let (low, high) = bounds(&line.points);
            if let (Some(low), Some(high)) = (low, high) {
                words.push(format!("{} {} to {}", line.name, self.unit.show(low), self.unit.show(high)));
            }
        }
        words.extend(
            self.limit.filter(|limit| limit.is_finite()).map(|limit| format!("limit {}", self.unit.show(limit))),
        );
        words.extend(
            self.band.map(|b| format!("recorded normal {} to {}", self.unit.show(b.low), self.unit.show(b.high))),
        );
        words.extend(self.marks.iter().map(|mark| format!("{} at {}", mark.name, clock(mark.at))));
        words.join("; ")
    }

    /// All lines as one row of blocks from left to right, with its scale.
    pub fn sparkline(&self) -> String {
        format!("{} 0 to {}", self.blocks(COLUMNS), self.unit.show(self.top()))
    }

    /// The row alone; a column without a reading is blank.
    pub fn blocks(&self, columns: usize) -> String {
        let count = columns.max(1);
        let (span, top) = (self.to.since(self.from).as_secs_f64().max(1e-3), self.top());
        let mut columns: Vec<Option<f64>> = vec![None; count];
        for (at, value) in self.lines.iter().flat_map(|line| &line.points) {
            let column = (at.since(self.from).as_secs_f64() / span * count as f64) as usize;
            let column = &mut columns[column.min(count - 1)];
            *column = Some(column.map_or(*value, |known| known.max(*value)));
        }
        columns
            .into_iter()
            .map(|column| match column {
                None => ' ',
                Some(value) => BLOCKS[((value / top * 7.0).round().clamp(0.0, 7.0)) as usize],
            })
            .collect()
    }
}

fn bounds(points: &[(Timestamp, f64)]) -> (Option<f64>, Option<f64>) {
    let values = || points.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
    (values().reduce(f64::min), values().reduce(f64::max))
}

impl Unit {
    /// A value beside an axis, where there is little room.
    fn beside_axis(self, value: f64) -> String {
        match self {
            Unit::OneIn if value < 6.0 => one_in(value).trim_start_matches("1 in ").to_owned(),
            Unit::OneIn => format!("10^{value:.0}"),
            Unit::Percent | Unit::Milliseconds | Unit::Plain => self.show(value),
        }
    }

    /// A value with its unit, in as many digits as it deserves.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Percent => format!("{} %", digits(value * 100.0)),
            Unit::Milliseconds => format!("{} ms", digits(value * 1000.0)),
            Unit::OneIn => one_in(value),
            Unit::Plain => digits(value),
        }
    }
}

/// `even`, `1 in 30`, `1 in 10^9`.
fn one_in(power: f64) -> String {
    match power {
        p if p < 0.15 => "even".into(),
        p if p < 6.0 => format!("1 in {}", digits(10f64.powf(p).round())),
        p => format!("1 in 10^{p:.0}"),
    }
}

/// Three figures, without idle zeroes.
fn digits(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        0.0 => return "0".into(),
        s if s >= 100.0 => format!("{value:.0}"),
        s if s >= 10.0 => format!("{value:.1}"),
        s if s >= 1.0 => format!("{value:.2}"),
        s if s >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Span;

    pub(super) fn sample() -> Chart {
        let begin = Timestamp::from_millis(1_795_269_600_000);
        let at = |s: u64| begin + Span::from_secs(s);
        let line = |name: &str, role, from: u64, to: u64, of: fn(u64) -> f64| Line {
            name: name.into(),
            role,
            points: (from..to).step_by(5).map(|s| (at(s), of(s))).collect(),
        };
        Chart {
            title: "error rate of checkout".into(),
            unit: Unit::Percent,
            from: begin,
            to: at(240),
            lines: vec![
                line("blue", Role::Old, 0, 60, |s| 0.001 + 0.0004 * f64::from((s % 3) as u32)),
                line("green", Role::New, 60, 180, |s| if s < 90 { 0.001 } else { 0.02 }),
            ],
            band: Some(Band { low: 0.0004, high: 0.0018 }),
            limit: Some(0.0015),
            marks: vec![
                Mark { at: at(60), name: "cut-over".into() },
                Mark { at: at(90), name: "onset".into() },
                Mark { at: at(100), name: "decision".into() },
                Mark { at: at(190), name: "rolled back".into() },
            ],
        }
    }

    #[test]
    fn it_says_what_it_shows() {
        let chart = sample();
        let words = chart.words();
        for part in ["error rate of checkout", "green 0.1 % to 2 %", "limit 0.15 %", "0.04 % to 0.18 %", "onset at"] {
            assert!(words.contains(part), "{part}: {words}");
        }
        let line = chart.sparkline();
        assert!(line.ends_with("0 to 2 %") && line.contains('█') && line.contains('▁'), "{line}");
        assert_eq!(line.split(" 0 to").next().map(|blocks| blocks.chars().count()), Some(COLUMNS));
    }

    #[test]
    fn numbers_have_the_digits_they_deserve() {
        let shown: Vec<String> = [0.0, 0.0015, 0.02, 0.5, 0.123_456].map(|v| Unit::Percent.show(v)).into();
        assert_eq!(shown, ["0 %", "0.15 %", "2 %", "50 %", "12.3 %"]);
        assert_eq!(
            (Unit::Milliseconds.show(0.0304), Unit::Milliseconds.show(1.5)),
            ("30.4 ms".into(), "1500 ms".into())
        );
    }

    /// Whatever comes: no markup, and numbers only where numbers belong.
    #[test]
    fn a_hostile_title_and_strange_numbers_make_a_harmless_picture() {
        let mut chart = sample();
        chart.title = "</text><script>&\"'\u{1b}[2J".into();
        chart.lines[1].points.push((chart.to, f64::NAN));
        chart.lines[1].points.push((chart.to, f64::INFINITY));
        chart.limit = Some(f64::INFINITY);
        chart.to = chart.from;
        let svg = chart.svg();
        assert!(
            !svg.contains("<script") && !svg.contains("NaN") && !svg.contains("inf") && !svg.contains('\u{1b}'),
            "{svg}"
        );
    }

    #[test]
    #[cfg(feature = "charts")]
    fn a_picture_is_small_and_has_its_text() {
        let png = sample().png().unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() < 24_000, "{} bytes", png.len());
        // The letters are in it: without the title it is another picture.
        let bare = Chart { title: String::new(), ..sample() }.png().unwrap();
        assert_ne!(png, bare);
    }
}
