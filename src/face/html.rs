//! Models into pages.

use minijinja::Environment;
use serde::Serialize;

use super::Frame;
use super::report::Report;
use crate::words::template::environment;

pub const STYLE: &str = include_str!("assets/page.css");
pub const SCRIPT: &str = include_str!("assets/live.js");
pub const ICON: &str = include_str!("assets/icon.svg");

const TEMPLATES: [(&str, &str); 13] = [
    ("base.html", include_str!("templates/base.html")),
    ("parts.html", include_str!("templates/parts.html")),
    ("home.html", include_str!("templates/home.html")),
    ("watch.html", include_str!("templates/watch.html")),
    ("history.html", include_str!("templates/history.html")),
    ("service.html", include_str!("templates/service.html")),
    ("explain.html", include_str!("templates/explain.html")),
    ("explained.html", include_str!("templates/explained.html")),
    ("report.html", include_str!("templates/report.html")),
    ("report.md", include_str!("templates/report.md")),
    ("backtest.html", include_str!("templates/backtest.html")),
    ("sign_in.html", include_str!("templates/sign_in.html")),
    ("problem.html", include_str!("templates/problem.html")),
];

/// A page of fifty services takes some hundred thousand; a report of eight thousand readings some millions.
const FUEL: u64 = 50_000_000;

/// Sections of a page have these ids: they are replaced one by one.
const SECTION: &str = "<section id=\"";
const SECTION_END: &str = "</section>";
const TITLE: &str = "<title>";
const TITLE_END: &str = "</title>";

#[derive(Debug)]
pub struct Html(Environment<'static>);

#[derive(Serialize)]
struct Whole<'a, T> {
    frame: &'a Frame,
    page: &'a T,
}

impl Html {
    pub fn new() -> Result<Html, String> {
        let mut env = environment(FUEL);
        env.add_filter("md", md);
        for (name, source) in TEMPLATES {
            env.add_template(name, source).map_err(|error| format!("{name}: {error:#}"))?;
        }
        Ok(Html(env))
    }

    pub fn report_html(&self, report: &Report) -> Result<String, String> {
        self.page("report.html", &Frame::default(), report)
    }

    pub fn report_md(&self, report: &Report) -> Result<String, String> {
        self.page("report.md", &Frame::default(), report)
    }

    pub fn backtest(&self, page: &super::backtest::Page) -> Result<String, String> {
        self.page("backtest.html", &Frame::default(), page)
    }

    pub fn page<T: Serialize>(&self, template: &str, frame: &Frame, page: &T) -> Result<String, String> {
        let found = self.0.get_template(template).map_err(|error| format!("{template}: {error:#}"))?;
        let whole = minijinja::Value::from(minijinja::value::Serde(Whole { frame, page }));
        found.render(whole).map_err(|error| format!("{template}: {error:#}"))
    }
}

/// Text that means nothing in Markdown, in one line.
fn md(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The sections of a page by their ids, and its title.
pub fn sections(page: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    if let (Some(from), Some(to)) = (page.find(TITLE), page.find(TITLE_END)) {
        found.extend(page.get(from..to + TITLE_END.len()).map(|title| ("title", title)));
    }
    let mut rest = page;
    while let Some(at) = rest.find(SECTION) {
        let from = &rest[at..];
        let Some(end) = from.find(SECTION_END) else { break };
        let section = &from[..end + SECTION_END.len()];
        let id = section[SECTION.len()..].split('"').next().unwrap_or_default();
        found.push((id, section));
        rest = &from[section.len()..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::Account;
    use crate::domain::notice::NoticeReason;
    use crate::domain::time::Timestamp;
    use crate::domain::view::WatchView;
    use crate::edge::notify::sample;
    use crate::face::terminal::screen;
    use crate::face::watch::{Beside, Query, WatchPage};

    #[test]
    fn every_template_parses() {
        Html::new().unwrap();
    }

    const HOSTILE: &str = "x\"'><script>alert(1)</script>|`*_[a](javascript:b)\n# y\u{1b}[31m\u{202e}z {{ 7 * 7 }}";

    /// Every text of a watch in turn, as far as its type lets anything in.
    fn spoilt(view: &serde_json::Value) -> Vec<WatchView> {
        fn places(value: &serde_json::Value, at: String, all: &mut Vec<String>) {
            match value {
                serde_json::Value::String(_) => all.push(at),
                serde_json::Value::Array(items) => {
                    items.iter().enumerate().for_each(|(i, item)| places(item, format!("{at}/{i}"), all));
                }
                serde_json::Value::Object(fields) => {
                    fields.iter().for_each(|(name, item)| places(item, format!("{at}/{name}"), all));
                }
                _ => {}
            }
        }
        let mut all = Vec::new();
        places(view, String::new(), &mut all);
        let spoil = |place: &String| {
            let mut view = view.clone();
            *view.pointer_mut(place)? = HOSTILE.into();
            serde_json::from_value(view).ok()
        };
        all.iter().filter_map(spoil).collect()
    }

    /// Whatever an event, a step or an operator said stays text: on every page, in both reports, on the terminal.
    #[test]
    fn hostile_values_stay_text_everywhere() {
        let html = Html::new().unwrap();
        let (mut pages, mut kept) = (0, 0);
        let now = Timestamp::from_millis(1_795_270_000_000);
        let kinds = [
            NoticeReason::RolledBackRecovered,
            NoticeReason::ApprovalWanted,
            NoticeReason::DrillFailed,
            NoticeReason::Healed,
        ];
        for notice in kinds.into_iter().filter_map(sample::notice) {
            for view in spoilt(&serde_json::to_value(&notice.watch).unwrap()) {
                let frame = Frame { root: "/".into(), ..Frame::default() };
                let account = Account { view, readings: vec![], judged: vec![], before: vec![], normal: vec![] };
                let beside = Beside {
                    queries: vec![Query { name: HOSTILE.into(), query: HOSTILE.into(), link: None }],
                    ..Beside::default()
                };
                let page = WatchPage::new(&account, beside, now);
                let report = Report::new(&account, now);
                let shown = [
                    html.page("watch.html", &frame, &page).unwrap(),
                    html.report_html(&report).unwrap(),
                    html.report_md(&report).unwrap(),
                    screen(&account, now, 100, 60).iter().flatten().map(|piece| piece.text.clone()).collect(),
                ];
                for (i, text) in shown.iter().enumerate() {
                    let plain = !text.contains(['\u{1b}', '\u{202e}']) && !text.contains(" 49 ");
                    // A terminal and an indented block know no markup.
                    let tame = i >= 2 || !text.contains("<script>alert");
                    let in_md = i != 2 || text.lines().all(|l| l.starts_with("    ") || !l.contains("<script>"));
                    assert!(plain && tame && in_md, "{i}: {text}");
                    kept += usize::from(text.contains("alert(1)"));
                    pages += 1;
                }
            }
        }
        assert!(pages > 400 && kept > 150, "{pages} pages, {kept} with the text in it");
    }

    #[test]
    fn a_page_falls_into_its_sections() {
        let page = "<title>t</title><main><section id=\"a\">1</section> <section id=\"b\"><p>2</p></section></main>";
        assert_eq!(
            sections(page),
            [
                ("title", "<title>t</title>"),
                ("a", "<section id=\"a\">1</section>"),
                ("b", "<section id=\"b\"><p>2</p></section>")
            ]
        );
    }
}
