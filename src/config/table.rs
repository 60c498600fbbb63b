//! A TOML table as the configuration reads it: every key is taken once, everything wrong is collected,
//! and what is left over is an unknown key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use crate::domain::time::Span;

/// The file being read, and what was found wrong with it so far.
pub struct Source<'t> {
    pub file: &'t str,
    pub text: &'t str,
    problems: RefCell<Vec<Problem>>,
    /// Which keys were asked for, by their table: what the reference is made of.
    asked: RefCell<BTreeSet<(String, &'static str)>>,
}

impl<'t> Source<'t> {
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Source { file, text, problems: RefCell::default(), asked: RefCell::default() }
    }

    pub fn problem(&self, span: Range<usize>, path: &str, message: impl Into<String>, help: Option<String>) {
        let problem = Problem::at(self.file, self.text, span, path.to_owned(), message.into(), help);
        self.problems.borrow_mut().push(problem);
    }

    /// The tables (names and numbers in their paths left away) and the keys that each may have.
    pub fn asked(&self) -> BTreeSet<(String, &'static str)> {
        self.asked.borrow().clone()
    }

    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// One table and which of its keys were asked for.
pub struct Table<'s, 't> {
    source: &'s Source<'t>,
    pub path: String,
    pub span: Range<usize>,
    table: &'s DeTable<'t>,
    known: RefCell<Vec<&'static str>>,
}

/// A value and its place.
#[derive(Clone)]
pub struct At<'s, 't> {
    pub source: &'s Source<'t>,
    pub path: String,
    pub span: Range<usize>,
    pub value: &'s DeValue<'t>,
}

impl<'s, 't> Table<'s, 't> {
    pub fn root(source: &'s Source<'t>, table: &'s Spanned<DeTable<'t>>) -> Self {
        Table { source, path: String::new(), span: 0..0, table: table.get_ref(), known: RefCell::default() }
    }

    /// The value of a key, if the table has it.
    pub fn get(&self, key: &'static str) -> Option<At<'s, 't>> {
        self.source.asked.borrow_mut().insert((nameless(&self.path), key));
        self.get_refused(key)
    }

    /// A key that is known only so that it can be refused: it is in no reference.
    pub fn get_refused(&self, key: &'static str) -> Option<At<'s, 't>> {
        self.known.borrow_mut().push(key);
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(self.at(key, value))
    }

    /// Like [`Table::get`]; a missing key is a problem.
    pub fn need(&self, key: &'static str, help: &str) -> Option<At<'s, 't>> {
        let found = self.get(key);
        if found.is_none() {
            let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
            self.source.problem(self.span.clone(), &path, "is missing", Some(help.to_owned()));
        }
        found
    }

    fn at(&self, key: &str, value: &'s Spanned<DeValue<'t>>) -> At<'s, 't> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        At { source: self.source, path, span: value.span(), value: value.get_ref() }
    }

    /// Every key with its value: for tables whose keys are names.
    pub fn entries(&self) -> Vec<(String, Range<usize>, At<'s, 't>)> {
        self.table.iter().map(|(k, v)| (k.get_ref().to_string(), k.span(), self.at(k.get_ref(), v))).collect()
    }

    /// Call when all keys were asked for: the rest is unknown.
    pub fn finish(self) {
        self.tell_unknown();
    }

    /// The same for a table that was lent.
    pub fn tell_unknown(&self) {
        let known = self.known.borrow();
        for (key, _) in self.table.iter() {
            if known.contains(&&**key.get_ref()) {
                continue;
            }
            let name: String = key.get_ref().chars().take(60).collect();
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            let help = slip_or_all(&name, "keys here", known.iter().copied());
            self.source.problem(key.span(), &path, "is not a key of this table", Some(help));
        }
    }

    pub fn problem(&self, path: &str, message: impl Into<String>, help: Option<String>) {
        self.source.problem(self.span.clone(), path, message, help);
    }
}

/// `service[3].rollback[0]` → `service.rollback`; what a person named (`metrics.web`, `slots.blue`) → `NAME`.
fn nameless(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect();
    for at in 1..parts.len() {
        if matches!(parts[at - 1], "metrics" | "slots" | "flags" | "custom") {
            parts[at] = "NAME";
        }
    }
    parts.join(".")
}

/// The mend for a name that is not there: the one that was meant, or all that there are.
pub fn slip_or_all<'a>(name: &str, what: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(name, candidates.clone()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("the {what} are {}", candidates.collect::<Vec<_>>().join(", ")),
    }
}

/// The closest of the candidates, when it is close enough to be a slip.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::damerau_levenshtein(name, c), c))
        .filter(|(distance, c)| *distance <= 1 + c.len().min(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

impl<'s, 't> At<'s, 't> {
    pub fn problem(&self, message: impl Into<String>, help: Option<&str>) {
        self.source.problem(self.span.clone(), &self.path, message, help.map(str::to_owned));
    }

    fn wrong_type(&self, wanted: &str) {
        self.problem(format!("is {}, but must be {wanted}", kind(self.value)), None);
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub fn table(&self) -> Option<Table<'s, 't>> {
        let Some(table) = self.value.as_table() else {
            self.wrong_type("a table");
            return None;
        };
        let (path, span) = (self.path.clone(), self.span.clone());
        Some(Table { source: self.source, path, span, table, known: RefCell::default() })
    }

    pub fn string(&self) -> Option<&'s str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type("a string");
        }
        text
    }

    pub fn boolean(&self) -> Option<bool> {
        let found = self.value.as_bool();
        if found.is_none() {
            self.wrong_type("true or false");
        }
        found
    }

    pub fn number(&self) -> Option<f64> {
        let text = match self.value {
            DeValue::Integer(i) if i.radix() == 10 => i.as_str(),
            DeValue::Float(f) => f.as_str(),
            _ => {
                self.wrong_type("a number");
                return None;
            }
        };
        match text.replace('_', "").parse::<f64>() {
            Ok(n) if n.is_finite() => Some(n),
            _ => {
                self.problem(format!("{text} is not a finite number"), None);
                None
            }
        }
    }

    /// A whole number in the range; `why` says why the bounds are where they are.
    pub fn whole(&self, range: std::ops::RangeInclusive<u32>, why: &str) -> Option<u32> {
        let n = self.number()?;
        if n.fract() != 0.0 || n < f64::from(*range.start()) || n > f64::from(*range.end()) {
            let message = format!("is {n}, but must be a whole number from {} to {}", range.start(), range.end());
            self.problem(message, Some(why));
            return None;
        }
        Some(n as u32)
    }

    pub fn duration(&self, range: std::ops::RangeInclusive<Span>, why: &str) -> Option<Span> {
        let Some(text) = self.value.as_str() else {
            self.problem(
                format!("is {}, but must be a duration", kind(self.value)),
                Some("write the unit, in quotes: \"30s\", \"5m\", \"1h30m\""),
            );
            return None;
        };
        match Span::parse(text) {
            Ok(span) if range.contains(&span) => Some(span),
            Ok(span) => {
                let message = format!("is {span}, but must be from {} to {}", range.start(), range.end());
                self.problem(message, Some(why));
                None
            }
            Err(why) => {
                self.problem(why.to_string(), None);
                None
            }
        }
    }

    pub fn list(&self) -> Option<Vec<At<'s, 't>>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type("a list");
            return None;
        };
        let item = |(i, v): (usize, &'s Spanned<DeValue<'t>>)| At {
            source: self.source,
            path: format!("{}[{i}]", self.path),
            span: v.span(),
            value: v.get_ref(),
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    pub fn strings(&self) -> Option<Vec<(&'s str, At<'s, 't>)>> {
        Some(self.list()?.into_iter().filter_map(|at| Some((at.string()?, at))).collect())
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let shown: String = text.chars().take(40).collect();
            let help = nearest(text, all.iter().copied()).map(|w| format!("did you mean {w:?}?"));
            self.problem(format!("{shown:?} is not one of {}", all.join(", ")), help.as_deref());
        }
        found
    }
}

pub fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
