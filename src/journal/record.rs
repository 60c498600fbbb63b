//! Messages ↔ rows. Every stored JSON has the version of its shape beside it; the fixtures under
//! `tests/vectors/` hold one of each kind per version, so that a change of shape is noticed.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::JournalError;

/// Version of the shapes of inputs, commands, views and notices.
pub(super) const VERSION: i64 = 1;

pub(super) fn encode<T: Serialize>(what: &str, value: &T) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|error| decode_error(what, &error))
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, version: i64, text: &str) -> Result<T, JournalError> {
    if version != VERSION {
        let error = format!("its record has version {version}, this flipback knows {VERSION}");
        return Err(JournalError::Decode { what: what.to_owned(), error });
    }
    serde_json::from_str(text).map_err(|error| decode_error(what, &error))
}

fn decode_error(what: &str, error: &serde_json::Error) -> JournalError {
    JournalError::Decode { what: what.to_owned(), error: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::engine::message::{Command, Input};

    fn kinds(all: &[Value]) -> BTreeSet<String> {
        let kind = |v: &Value| v.as_str().map(str::to_owned).or_else(|| v.as_object()?.keys().next().cloned());
        all.iter().filter_map(kind).collect()
    }

    fn unchanged<T: Serialize + DeserializeOwned>(what: &str, row: &Value) {
        let read: T = decode(what, 1, &row.to_string()).unwrap_or_else(|e| panic!("{e}: {row}"));
        let written: Value = serde_json::from_str(&encode(what, &read).unwrap()).unwrap();
        assert_eq!(written, *row);
    }

    /// One of each kind as version 1 writes them: a change of shape needs a new version, and a way to
    /// read this file still.
    #[test]
    fn the_first_records_can_still_be_read() {
        let snapshot = include_str!("../../tests/vectors/journal_v1.snap");
        let fixture: Value = serde_json::from_str(snapshot.splitn(3, "---\n").nth(2).unwrap()).unwrap();
        let (inputs, commands) = (fixture["inputs"].as_array().unwrap(), fixture["commands"].as_array().unwrap());
        assert_eq!((kinds(inputs).len(), kinds(commands).len()), (20, 13), "one of each kind");
        inputs.iter().for_each(|row| unchanged::<Input>("an input", row));
        commands.iter().for_each(|row| unchanged::<Command>("a command", row));
        let newer: Result<Input, _> = decode("an input", 2, "\"timer\"");
        assert!(newer.is_err(), "a version that is not known is not guessed at");
    }
}
