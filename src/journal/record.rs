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
