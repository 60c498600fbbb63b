//! From a request's body to checked values; every refusal names the field and the mend.

use std::fmt;

use chrono::DateTime;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::domain::switch::{
    About, Announcement, BadName, EventId, FlagName, Kind, Percent, RollbackSafety, ServiceName, Slot, Version,
};
use crate::domain::time::{Span, Timestamp};

/// A reason is a line in a story, not a report.
const WHY_CHARS: usize = 200;

/// An announcement may be late by this: a pipeline that retries for an hour.
const LATE_MAX: Span = Span::from_mins(60);
/// The announcer's clock may be ahead of ours by this.
const AHEAD_MAX: Span = Span::from_secs(30);

/// What people are told beside a switch: a mail's worth.
const OWNER_CHARS: usize = 128;
const LINKS_MAX: usize = 10;
const LINK_CHARS: usize = 500;
const CHANGES_MAX: usize = 100;
const CHANGE_CHARS: usize = 200;

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub field: Option<String>,
    pub text: String,
}

fn refuse<T>(field: &str, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field: Some(field.to_owned()), text: text.into() })
}

/// A JSON object with known keys only; each key is taken once.
pub struct Fields {
    map: Map<String, Value>,
    known: Vec<&'static str>,
}

/// Why an operator does it, in one line.
pub fn why(fields: &mut Fields) -> Result<String, Refusal> {
    let text = fields.text("why")?.unwrap_or_default();
    Ok(text.chars().filter(|c| !c.is_control()).take(WHY_CHARS).collect())
}

impl Fields {
    pub fn parse(body: &[u8]) -> Result<Fields, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Fields { map: Map::new(), known: Vec::new() });
        }
        let wrong = |text: String| Refusal { field: None, text };
        let value: Value =
            serde_json::from_slice(body).map_err(|error| wrong(format!("the body is not JSON: {error}")))?;
        if !value.is_object() {
            return Err(wrong(format!("the body is {}, but must be an object", kind(&value))));
        }
        // A second time, for what a map of values forgets: two keys of one name.
        let Unique(map) = serde_json::from_slice(body).map_err(|error| wrong(format!("the body: {error}")))?;
        Ok(Fields { map, known: Vec::new() })
    }

    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, Refusal> {
        self.known.push(key);
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => refuse(key, format!("is {}, but must be a string", kind(&other))),
        }
    }

    pub fn need(&mut self, key: &'static str) -> Result<String, Refusal> {
        match self.text(key)? {
            Some(text) => Ok(text),
            None => refuse(key, "is missing"),
        }
    }

    pub fn number(&mut self, key: &'static str) -> Result<Option<f64>, Refusal> {
        self.known.push(key);
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(n)) => Ok(n.as_f64()),
            Some(other) => refuse(key, format!("is {}, but must be a number", kind(&other))),
        }
    }

    /// A list of lines, each cut to `chars`.
    pub fn lines(&mut self, key: &'static str, most: usize, chars: usize) -> Result<Vec<String>, Refusal> {
        self.known.push(key);
        let list = match self.map.remove(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(other) => return refuse(key, format!("is {}, but must be a list of strings", kind(&other))),
        };
        if list.len() > most {
            return refuse(key, format!("has {} entries; {most} are read by nobody already", list.len()));
        }
        let line = |value: Value| match value {
            Value::String(text) => Ok(one_line(&text, chars)),
            other => refuse(key, format!("holds {}, but must hold strings", kind(&other))),
        };
        list.into_iter().map(line).collect()
    }

    pub fn flag(&mut self, key: &'static str) -> Result<bool, Refusal> {
        self.known.push(key);
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => refuse(key, format!("is {}, but must be true or false", kind(&other))),
        }
    }

    /// Whatever is left is unknown.
    pub fn finish(self) -> Result<(), Refusal> {
        let Some(key) = self.map.keys().next() else { return Ok(()) };
        let shown: String = key.chars().filter(|c| !c.is_control()).take(60).collect();
        let near = self.known.iter().min_by_key(|k| strsim::damerau_levenshtein(k, &shown));
        let help = match near {
            Some(k) if strsim::damerau_levenshtein(k, &shown) <= 2 => format!("did you mean {k}?"),
            _ if self.known.is_empty() => "it has none".to_owned(),
            _ => format!("known are {}", self.known.join(", ")),
        };
        refuse(&shown, format!("is not a field of this request: {help}"))
    }
}

/// An object in which each key is there once.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Unique;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let mut map = Map::new();
                while let Some((key, value)) = access.next_entry::<String, Value>()? {
                    let shown: String = key.chars().take(60).collect();
                    if map.insert(key, value).is_some() {
                        return Err(A::Error::custom(format!("the key {shown:?} is there twice")));
                    }
                }
                Ok(Unique(map))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub fn name<T>(field: &str, text: String, make: impl Fn(String) -> Result<T, BadName>) -> Result<T, Refusal> {
    make(text).map_err(|why| Refusal { field: Some(field.to_owned()), text: why.bare() })
}

/// One line for people: no control characters, cut.
fn one_line(text: &str, chars: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars).collect::<String>().trim().to_owned()
}

/// What a switch is about, for the people who get its notices.
fn about(fields: &mut Fields) -> Result<About, Refusal> {
    let owner = fields.text("owner")?.map(|text| one_line(&text, OWNER_CHARS)).filter(|text| !text.is_empty());
    let links = fields.lines("links", LINKS_MAX, LINK_CHARS)?;
    for link in &links {
        let good = reqwest::Url::parse(link).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !good {
            let shown: String = link.chars().take(60).collect();
            return refuse("links", format!("{shown:?} is not an http or https URL"));
        }
    }
    let changes = fields.lines("changes", CHANGES_MAX, CHANGE_CHARS)?;
    Ok(About { owner, links, changes: changes.into_iter().filter(|text| !text.is_empty()).collect() })
}

fn what(fields: &mut Fields) -> Result<Kind, Refusal> {
    let kind = fields.text("kind")?;
    let flag = fields.text("flag")?.map(|text| name("flag", text, FlagName::try_new)).transpose()?;
    match (kind.as_deref(), flag) {
        (None | Some("flag"), Some(flag)) => Ok(Kind::Flag(flag)),
        (None | Some("traffic"), None) => Ok(Kind::Traffic),
        (Some("flag"), None) => refuse("flag", "is missing: the name of the flag that changed"),
        (Some("traffic"), Some(_)) => refuse("flag", "is there, but kind is \"traffic\""),
        (Some(other), _) => {
            let shown: String = other.chars().take(40).collect();
            refuse("kind", format!("{shown:?} is neither \"traffic\" nor \"flag\""))
        }
    }
}

pub fn announcement(body: &[u8], source: String, now: Timestamp) -> Result<Announcement, Refusal> {
    announced(Fields::parse(body)?, source, now)
}

/// The same from what a webhook's templates made.
pub fn from_map(map: Map<String, Value>, source: String, now: Timestamp) -> Result<Announcement, Refusal> {
    announced(Fields { map, known: Vec::new() }, source, now)
}

fn announced(mut fields: Fields, source: String, now: Timestamp) -> Result<Announcement, Refusal> {
    let service = name("service", fields.need("service")?, ServiceName::try_new)?;
    let old = name("old", fields.need("old")?, Slot::try_new)?;
    let new = name("new", fields.need("new")?, Slot::try_new)?;
    let version = fields.text("version")?.map(|v| name("version", v, Version::try_new)).transpose()?;
    let old_version = fields.text("old_version")?.map(|v| name("old_version", v, Version::try_new)).transpose()?;
    let event_id = fields.text("id")?.map(|v| name("id", v, EventId::try_new)).transpose()?;
    let switched_at = fields.text("switched_at")?.map(|text| instant("switched_at", &text)).transpose()?;
    if let Some(at) = switched_at {
        if now.since(at) > LATE_MAX {
            return refuse("switched_at", format!("{at} is more than an hour ago: too late to watch this switch"));
        }
        if at.since(now) > AHEAD_MAX {
            return refuse(
                "switched_at",
                format!("{at} is in the future (it is {now}): announce when it has happened"),
            );
        }
    }
    let rollback = match fields.text("rollback")?.as_deref() {
        None | Some("safe") => RollbackSafety::Safe,
        Some("unsafe") => RollbackSafety::Unsafe,
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            return refuse("rollback", format!("{shown:?} is neither \"safe\" nor \"unsafe\""));
        }
    };
    let assume_old = fields.flag("assume_old")?;
    let kind = what(&mut fields)?;
    let share = fields.number("share_percent")?;
    let share_percent = share
        .map(|n| Percent::try_new(n).map_err(|why| Refusal { field: Some("share_percent".into()), text: why.bare() }));
    let share_percent = share_percent.transpose()?.filter(|share| !share.is_all());
    let old_until = fields.text("old_until")?.map(|text| instant("old_until", &text)).transpose()?;
    let about = about(&mut fields)?;
    fields.finish()?;
    Ok(Announcement {
        event_id,
        service,
        kind,
        old,
        new,
        share_percent,
        old_version,
        version,
        switched_at,
        rollback,
        assume_old,
        old_until,
        about,
        detected: false,
        source,
    })
}

/// RFC 3339 with a zone.
pub fn instant(field: &str, text: &str) -> Result<Timestamp, Refusal> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(Timestamp::from_millis(at.timestamp_millis())),
        Err(_) => {
            let shown: String = text.chars().take(40).collect();
            refuse(field, format!("{shown:?} is not a time with a zone; write it like 2026-11-21T14:02:07Z"))
        }
    }
}
