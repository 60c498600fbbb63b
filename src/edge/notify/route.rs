//! Who is told what: labels, matchers and a tree of routes, in Alertmanager's words.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use crate::domain::letter::Letter;
use crate::domain::notice::NoticeReason;
use crate::domain::time::Span;

use super::page::severity_word;

/// What matchers may look at.
pub const LABELS: [&str; 5] = ["service", "kind", "severity", "mode", "owner"];

/// A compiled expression is small; anything larger is no matcher for a handful of names.
const REGEX_BYTES: usize = 64 * 1024;

/// A label that a letter lacks is the empty text, as in Alertmanager.
pub type Labels = BTreeMap<&'static str, String>;

pub fn labels(letter: &Letter) -> Labels {
    let mut labels = Labels::from([
        ("kind", letter.kind().to_owned()),
        ("severity", severity_word(letter.severity()).to_owned()),
        ("service", letter.service().map_or(String::new(), ToString::to_string)),
    ]);
    if let Some(notice) = letter.notice() {
        labels.insert("mode", notice.watch.mode.to_string());
        labels.insert("owner", notice.watch.switch.about.owner.clone().unwrap_or_default());
    }
    labels
}

#[derive(Debug, Clone)]
pub struct Matcher {
    label: String,
    not: bool,
    value: Value,
    /// As it was written.
    text: String,
}

#[derive(Debug, Clone)]
enum Value {
    Is(String),
    Like(Regex),
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Matcher {
    /// `service="checkout"`, `kind!="passed"`, `service=~"pay.*"`, `severity!~"info|warning"`. Expressions match the
    /// whole value.
    pub fn parse(text: &str) -> Result<Matcher, String> {
        const FORM: &str = "a matcher is LABEL=\"VALUE\", with =, !=, =~ or !~";
        let trimmed = text.trim();
        let end = trimmed.find(['=', '!']).ok_or(FORM)?;
        let label = trimmed[..end].trim();
        if !LABELS.contains(&label) {
            return Err(format!("{label:?} is no label: they are {}", LABELS.join(", ")));
        }
        let (op, rest) = trimmed[end..]
            .split_at_checked(2)
            .filter(|(op, _)| ["!=", "=~", "!~"].contains(op))
            .map_or_else(|| trimmed[end..].strip_prefix('=').map(|rest| ("=", rest)).ok_or(FORM), Ok)?;
        let rest = rest.trim();
        let value = match rest.strip_prefix('"') {
            Some(inner) => inner.strip_suffix('"').ok_or("the closing quote is missing")?,
            None => rest,
        };
        if label == "kind" && matches!(op, "=" | "!=") && !is_kind(value) {
            return Err(format!("{value:?} is no kind of notice"));
        }
        if label == "severity" && matches!(op, "=" | "!=") && !["info", "warning", "page"].contains(&value) {
            return Err(format!("{value:?} is no severity: they are info, warning and page"));
        }
        let value = match op {
            "=~" | "!~" => {
                let whole = format!("^(?:{value})$");
                let regex = RegexBuilder::new(&whole).size_limit(REGEX_BYTES).build();
                Value::Like(regex.map_err(|error| format!("{value:?} is no expression: {}", last_line(&error)))?)
            }
            _ => Value::Is(value.to_owned()),
        };
        Ok(Matcher { label: label.to_owned(), not: op.starts_with('!'), value, text: trimmed.to_owned() })
    }

    fn matches(&self, labels: &Labels) -> bool {
        let found = labels.get(self.label.as_str()).map_or("", String::as_str);
        let is = match &self.value {
            Value::Is(text) => text == found,
            Value::Like(regex) => regex.is_match(found),
        };
        is != self.not
    }
}

fn last_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim().to_owned()
}

/// Kinds that a letter can have.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    NoticeReason::ALL.iter().map(|reason| reason.word()).chain(["undeliverable", "digest"])
}

fn is_kind(word: &str) -> bool {
    kinds().any(|kind| kind == word)
}

/// A node of the tree. The first child that matches takes the letter, unless it says `continue`; where no child does,
/// the node itself has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub receiver: String,
    pub matchers: Vec<Matcher>,
    pub go_on: bool,
    /// How often what stands is told again; `None`: once.
    pub repeat: Option<Span>,
    pub routes: Vec<Route>,
}

impl Route {
    /// Everything to one receiver.
    pub fn to(receiver: &str, repeat: Option<Span>) -> Route {
        Route { receiver: receiver.to_owned(), matchers: Vec::new(), go_on: false, repeat, routes: Vec::new() }
    }

    /// Receivers of a letter with these labels, each once, with the shortest interval that was asked for.
    pub fn resolve(&self, labels: &Labels) -> BTreeMap<String, Option<Span>> {
        let mut found = BTreeMap::new();
        self.walk(labels, &mut found);
        found
    }

    fn walk(&self, labels: &Labels, found: &mut BTreeMap<String, Option<Span>>) {
        let mut taken = false;
        for child in self.routes.iter().filter(|child| child.matchers.iter().all(|m| m.matches(labels))) {
            child.walk(labels, found);
            taken = true;
            if !child.go_on {
                break;
            }
        }
        if !taken {
            let entry = found.entry(self.receiver.clone()).or_insert(self.repeat);
            *entry = match (*entry, self.repeat) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
    }

    /// Every receiver that the tree names.
    pub fn receivers(&self) -> Vec<&str> {
        let mut all = vec![self.receiver.as_str()];
        self.routes.iter().for_each(|route| all.extend(route.receivers()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(service: &str, severity: &str) -> Labels {
        Labels::from([("service", service.into()), ("severity", severity.into()), ("kind", "blind".into())])
    }

    fn route(receiver: &str, matchers: &[&str], go_on: bool, routes: Vec<Route>) -> Route {
        let matchers = matchers.iter().map(|m| Matcher::parse(m).unwrap()).collect();
        Route { receiver: receiver.into(), matchers, go_on, repeat: None, routes }
    }

    #[test]
    fn matchers_are_alertmanagers() {
        let holds = |matcher: &str| Matcher::parse(matcher).unwrap().matches(&labels("checkout", "page"));
        for good in [
            "service=\"checkout\"",
            "service = checkout",
            "service=~\"check.*|pay\"",
            "severity!=\"info\"",
            "severity!~\"info|warning\"",
            "owner=\"\"",
        ] {
            assert!(holds(good), "{good}");
        }
        for other in ["service=~\"check\"", "service!=\"checkout\"", "severity!~\"p.*\"", "mode=\"auto\""] {
            assert!(!holds(other), "{other}: expressions match the whole value");
        }
        for (wrong, why) in [
            ("service", "a matcher is"),
            ("team=\"a\"", "no label"),
            ("service=\"a", "closing quote"),
            ("service=~\"(\"", "no expression"),
            ("kind=\"brocken\"", "no kind"),
            ("severity=\"critical\"", "no severity"),
            ("service=~\"(a{1000}){1000}\"", "no expression"),
        ] {
            let said = Matcher::parse(wrong).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    #[test]
    fn the_first_match_takes_it_unless_it_says_continue() {
        let tree = route(
            "mail",
            &[],
            false,
            vec![
                route("log", &[], true, vec![]),
                route(
                    "pager",
                    &["severity=\"page\""],
                    false,
                    vec![route("payments", &["service=~\"pay.*\""], false, vec![])],
                ),
                route("never", &["severity=\"page\""], false, vec![]),
            ],
        );
        let to =
            |service: &str, severity: &str| tree.resolve(&labels(service, severity)).into_keys().collect::<Vec<_>>();
        assert_eq!(to("checkout", "page"), ["log", "pager"]);
        assert_eq!(to("payments", "page"), ["log", "payments"]);
        assert_eq!(to("checkout", "info"), ["log"], "a child that says continue has taken it");
        let plain = route("mail", &[], false, vec![route("pager", &["severity=\"page\""], false, vec![])]);
        assert_eq!(plain.resolve(&labels("x", "info")).into_keys().collect::<Vec<_>>(), ["mail"]);
    }
}
