//! From a payload to an announcement: one small template for each field. What renders to nothing is not said.

use std::collections::BTreeMap;

use chrono::DateTime;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value as Shown};
use serde_json::{Map, Number, Value};

/// A field's text: names are short, a list of changes is a page.
const RENDERED_MAX: usize = 16 * 1024;

/// A template that works harder than this is not a small one.
const FUEL: u64 = 20_000;

pub struct Templates {
    env: Environment<'static>,
    fields: Vec<String>,
    when: bool,
}

/// Whether a text can be a template, or its mistake.
pub fn check(text: &str) -> Result<(), String> {
    environment().template_from_str(text).map(|_| ()).map_err(|error| told(&error))
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    // A payload that lacks something on the way to a field has nothing to say about that field.
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    // What is made here is values, checked as such, never markup.
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.add_filter("instant", instant);
    env.add_filter("short", |text: String| text.chars().take(12).collect::<String>());
    env
}

/// Times as tools write them, in RFC 3339: seconds or milliseconds since 1970, `2026-11-21 14:02:07 +0100`.
fn instant(value: Shown) -> Result<String, Error> {
    if value.is_undefined() || value.is_none() {
        return Ok(String::new());
    }
    let text = value.to_string();
    let wrong = || {
        Error::new(ErrorKind::InvalidOperation, format!("{:?} is no time", &text.chars().take(40).collect::<String>()))
    };
    if let Ok(n) = text.parse::<i64>() {
        // Beyond the year 5000 in seconds: milliseconds.
        let ms = if n.abs() >= 100_000_000_000 { n } else { n.saturating_mul(1000) };
        return DateTime::from_timestamp_millis(ms).map(|at| at.to_rfc3339()).ok_or_else(wrong);
    }
    let at = DateTime::parse_from_rfc3339(&text)
        .or_else(|_| DateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S %z"))
        .or_else(|_| DateTime::parse_from_str(&text.replace(" UTC", " +0000"), "%Y-%m-%d %H:%M:%S %z"));
    at.map(|at| at.to_rfc3339()).map_err(|_| wrong())
}

fn told(error: &Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!(" (line {line})"));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    detail.chars().filter(|c| !c.is_control()).take(200).collect::<String>() + &line
}

impl Templates {
    pub fn new(
        defaults: &[(&'static str, &'static str)],
        own: &BTreeMap<String, String>,
        when: Option<&str>,
    ) -> Result<Templates, String> {
        let mut all: BTreeMap<String, String> =
            defaults.iter().map(|(field, text)| ((*field).to_owned(), (*text).to_owned())).collect();
        all.extend(own.clone());
        let mut env = environment();
        let fields: Vec<String> = all.keys().cloned().collect();
        for (field, text) in all {
            env.add_template_owned(field.clone(), text).map_err(|error| format!("map.{field}: {}", told(&error)))?;
        }
        if let Some(when) = when {
            let text = format!("{{% if {when} %}}yes{{% endif %}}");
            env.add_template_owned("(when)", text).map_err(|error| format!("when: {}", told(&error)))?;
        }
        Ok(Templates { env, fields, when: when.is_some() })
    }

    fn fill(&self, name: &str, vars: &Map<String, Value>) -> Result<String, String> {
        let template = self.env.get_template(name).map_err(|error| told(&error))?;
        let text = template
            .render(Shown::from(minijinja::value::Serde(vars)))
            .map_err(|error| format!("{name}: {}", told(&error)))?;
        if text.len() > RENDERED_MAX {
            return Err(format!("{name} is longer than {} KiB", RENDERED_MAX / 1024));
        }
        Ok(text.trim().to_owned())
    }

    pub fn wanted(&self, vars: &Map<String, Value>) -> Result<bool, String> {
        Ok(!self.when || self.fill("(when)", vars)? == "yes")
    }

    /// One field alone.
    pub fn one(&self, field: &str, vars: &Map<String, Value>) -> Result<String, String> {
        if self.fields.iter().any(|known| known == field) { self.fill(field, vars) } else { Ok(String::new()) }
    }

    pub fn announcement(&self, vars: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        let mut map = Map::new();
        for field in self.fields.iter().filter(|field| *field != "alert_service") {
            let text = self.fill(field, vars)?;
            if text.is_empty() {
                continue;
            }
            let value = match field.as_str() {
                "links" | "changes" => {
                    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                    Value::Array(lines.map(|line| Value::String(line.to_owned())).collect())
                }
                "share_percent" => {
                    let number = text.trim_end_matches('%').trim().parse().ok().and_then(Number::from_f64);
                    number.map(Value::Number).ok_or_else(|| format!("share_percent: {text:?} is not a number"))?
                }
                "assume_old" => Value::Bool(text == "true"),
                _ => Value::String(text),
            };
            map.insert(field.clone(), value);
        }
        Ok(map)
    }
}
