//! A metrics page: Prometheus's text format, or OpenMetrics. A line's series is parsed by the PromQL crate (the crates
//! for these formats lose labels that hold `,` or `}`, or come under a licence that binds the whole program), and
//! only the lines that are wanted are looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::edge::sources::decode::Labels;
use crate::edge::sources::promql::{Matching, labels_of};

/// The gauge that every client library has.
pub const STARTED: &str = "process_start_time_seconds";

/// A page of so many wanted series is somebody's mistake: a label for each user.
const SERIES_MAX: usize = 20_000;

/// What a series counts towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    Requests,
    Errors,
    Latency,
}

/// The selectors of a slot, bound.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub parts: Vec<(Part, Matching)>,
}

impl Wanted {
    fn names(&self) -> BTreeSet<&str> {
        self.parts.iter().map(|(_, m)| m.metric()).chain([STARTED]).collect()
    }
}

/// Where a series belongs, worked out once for each line's beginning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Place {
    pub parts: Vec<Part>,
    /// The upper bound, of a bucket; buckets of one histogram share the rest of their labels.
    pub le: Option<String>,
    pub histogram: String,
}

/// What was read. The keys are the lines' own beginnings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    pub values: BTreeMap<String, f64>,
    pub started_s: Option<f64>,
}

/// Beginnings of lines that were seen before.
pub type Known = HashMap<String, Place>;

/// Reads a page; the error names the line.
pub fn read(text: &str, openmetrics: bool, wanted: &Wanted, known: &mut Known) -> Result<Page, String> {
    let names = wanted.names();
    let mut page = Page::default();
    let mut ended = false;
    for (n, line) in (1usize..).zip(text.lines()) {
        let line = line.trim();
        if line.starts_with('#') {
            ended |= line == "# EOF";
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let name = line.split(|c: char| c == '{' || c.is_whitespace()).next().unwrap_or_default();
        if !names.contains(name) {
            continue;
        }
        let wrong = |why: String| format!("line {n}: {why}");
        let (series, rest) = split(line).ok_or_else(|| wrong("its labels have no end".into()))?;
        let value = rest.split_whitespace().next().ok_or_else(|| wrong(format!("{name} has no value")))?;
        let value = number(value).ok_or_else(|| wrong(format!("{name} is {value:.40}, which is no number")))?;
        if name == STARTED {
            // Several processes behind one page: the youngest may have lost its counters.
            page.started_s = Some(page.started_s.map_or(value, |known: f64| known.max(value)));
            continue;
        }
        if !known.contains_key(series) {
            if known.len() >= SERIES_MAX {
                return Err(format!("more than {SERIES_MAX} series: is there a label for each user or path?"));
            }
            let labels = labels_of(series).map_err(|why| wrong(format!("{name}: {why}")))?;
            known.insert(series.to_owned(), place(name, labels, wanted));
        }
        if known.get(series).is_none_or(|place| place.parts.is_empty()) {
            continue;
        }
        if !(value >= 0.0 && value.is_finite()) {
            return Err(wrong(format!("the counter {series:.200} is {value}")));
        }
        if page.values.insert(series.to_owned(), value).is_some() {
            return Err(wrong(format!("{series:.200} is there twice")));
        }
    }
    if openmetrics && !ended {
        return Err("it ends without # EOF: it was cut off".into());
    }
    Ok(page)
}

/// The series and what stands behind it: the first `}` that is in no label's value ends it.
fn split(line: &str) -> Option<(&str, &str)> {
    let brace = line.find('{');
    let blank = line.find(char::is_whitespace).unwrap_or(line.len());
    let Some(brace) = brace.filter(|brace| *brace < blank) else { return Some(line.split_at(blank)) };
    let (mut quoted, mut escaped) = (false, false);
    for (i, c) in line.char_indices().skip_while(|(i, _)| *i < brace) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(line.split_at(i + 1)),
            _ => {}
        }
    }
    None
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        text => text.parse().ok(),
    }
}

fn place(name: &str, mut labels: Labels, wanted: &Wanted) -> Place {
    let parts = wanted.parts.iter().filter(|(_, m)| m.metric() == name && m.holds(&labels)).map(|(part, _)| *part);
    let parts = parts.collect();
    let le = labels.remove("le");
    Place { parts, le, histogram: format!("{labels:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::sources::promql::Selector;

    fn wanted() -> Wanted {
        let m = |text: &str| {
            let none = BTreeSet::new();
            Selector::parse(text).unwrap().matching(&none, &BTreeSet::from(["blue"]), &Default::default()).unwrap()
        };
        Wanted {
            parts: vec![
                (Part::Requests, m(r#"http_requests_total{env="$slot",job="app"}"#)),
                (Part::Errors, m(r#"http_requests_total{env="$slot",job="app",code=~"5.."}"#)),
                (Part::Latency, m(r#"latency_bucket{env="$slot"}"#)),
            ],
        }
    }

    fn page(text: &str) -> Result<(Page, Known), String> {
        let mut known = Known::new();
        read(text, false, &wanted(), &mut known).map(|page| (page, known))
    }

    #[test]
    fn both_formats_are_read_with_whatever_their_labels_hold() {
        let text = r##"# HELP http_requests_total All of them.
# TYPE http_requests_total counter
http_requests_total{code="200",path="/a,{id}=\"x\" \\"} 12
http_requests_total{ code = "503" , path="/b" , } 3 1700000000000
http_requests_total{code="200",env="blue"} 5.0 # {trace_id="abc}"} 0.67 1700000000
http_requests_total{code="200",env="green"} 999
other_total{code="500"} nonsense
process_start_time_seconds 1.7e9
latency_bucket{le="0.1"} 4
latency_bucket{le="+Inf"} 9
"##;
        let (page, known) = page(text).unwrap();
        assert_eq!(page.started_s, Some(1.7e9));
        assert_eq!(page.values.len(), 5, "another slot's are not wanted: {page:?}");
        let of = |part: Part| -> f64 {
            page.values.iter().filter(|(series, _)| known[*series].parts.contains(&part)).map(|(_, v)| v).sum()
        };
        assert_eq!((of(Part::Requests), of(Part::Errors), of(Part::Latency)), (20.0, 3.0, 13.0));
        let les: BTreeSet<&str> = known.values().filter_map(|p| p.le.as_deref()).collect();
        assert_eq!(les, BTreeSet::from(["+Inf", "0.1"]));
    }

    #[test]
    fn what_cannot_be_counted_is_no_page() {
        let wrong = |text: &str| page(text).unwrap_err();
        assert!(wrong("http_requests_total{code=\"200\"} NaN\n").contains("line 1: the counter"));
        assert!(wrong("http_requests_total{code=\"200\"} -4\n").contains("is -4"));
        assert!(wrong("\nhttp_requests_total{code=\"200\" 4\n").contains("line 2: its labels have no end"));
        assert!(wrong("http_requests_total{code=\"200\"}\n").contains("has no value"));
        assert!(wrong("http_requests_total{code=\"200\"} many\n").contains("no number"));
        assert!(wrong("http_requests_total{code=200} 4\n").contains("line 1: http_requests_total"));
        let twice = "http_requests_total{code=\"200\"} 1\nhttp_requests_total{code=\"200\"} 2\n";
        assert!(wrong(twice).contains("line 2: http_requests_total{code=\"200\"} is there twice"));
        let cut = read("http_requests_total{code=\"200\"} 1\n", true, &wanted(), &mut Known::new()).unwrap_err();
        assert!(cut.contains("cut off"), "{cut}");
        assert!(read("http_requests_total{code=\"200\"} 1\n# EOF\n", true, &wanted(), &mut Known::new()).is_ok());
    }

    proptest::proptest! {
        /// Whatever a page holds, reading it ends, and no value is made up.
        #[test]
        fn any_text_is_a_page_or_a_reason(text in "(http_requests_total|latency_bucket|x)?[ -~\n]{0,200}") {
            if let Ok((page, _)) = page(&text) {
                proptest::prop_assert!(page.values.values().all(|v| v.is_finite() && *v >= 0.0));
            }
        }

        /// What is written is what is read, whatever stands in a label's value.
        #[test]
        fn labels_come_back(value in "\\PC{0,30}", n in 0u32..1_000_000) {
            let written = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let (page, _) = page(&format!("http_requests_total{{code=\"200\",path=\"{written}\"}} {n}\n")).unwrap();
            proptest::prop_assert_eq!(page.values.values().copied().collect::<Vec<_>>(), vec![f64::from(n)]);
        }
    }
}
