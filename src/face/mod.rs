//! What people see in a browser, and in the file of a report: models of pages, and the templates that they are poured
//! into. No I/O and no clock: what is shown is an argument.

pub mod backtest;
pub mod explained;
pub mod home;
pub mod html;
pub mod report;
pub mod standing;
pub mod terminal;
pub mod watch;

use serde::Serialize;

/// What every page has around it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Frame {
    /// The path that everything lies under, with its slash.
    pub root: String,
    /// Of the style and the script: a browser may keep them for as long as it does not change.
    pub version: String,
    /// Version of flipback.
    pub build: String,
    pub host: String,
    pub here: &'static str,
    /// Somebody is signed in, and as whom.
    pub signed: bool,
    pub name: String,
    /// What became of the last order.
    pub said: String,
    pub said_tone: &'static str,
    /// Where the changes come from; empty: this page stands still.
    pub live: String,
}

/// A bar with its words: `value` is in thousandths.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Meter {
    pub name: &'static str,
    pub value: u32,
    pub text: String,
    pub tone: &'static str,
}

impl Meter {
    pub fn new(name: &'static str, part: f64, text: String, tone: &'static str) -> Meter {
        let value = if part.is_finite() { (part.clamp(0.0, 1.0) * 1000.0).round() as u32 } else { 0 };
        Meter { name, value, text, tone }
    }
}

/// Something that an operator can order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    pub verb: &'static str,
    pub label: &'static str,
    pub tone: &'static str,
    pub says: String,
    /// Where its form goes, below the root.
    pub path: String,
    pub field: &'static str,
    pub field_label: &'static str,
    pub field_value: &'static str,
}

impl Order {
    pub fn new(verb: &'static str, label: &'static str, tone: &'static str, below: &str, says: String) -> Order {
        let path = format!("{below}{verb}");
        Order { verb, label, tone, says, path, field: "", field_label: "", field_value: "" }
    }

    pub fn asks(self, field: &'static str, field_label: &'static str, field_value: &'static str) -> Order {
        Order { field, field_label, field_value, ..self }
    }
}
