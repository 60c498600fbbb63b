//! The durable log of inputs and decisions. Nothing outside this module knows that it is SQLite.
//!
//! One [`Journal`] writes (the driver's thread owns it); any number of [`Reader`]s read, also while no
//! daemon runs. A commit is one transaction with one sync: inputs, decisions, outbox rows, attempts,
//! views and snapshot are all there or none is.

mod append;
mod chain;
mod error;
mod glance;
mod letters;
mod read;
mod readings;
mod record;
mod schema;
pub mod write;

pub use append::{Batch, Entry, Journal, Recovered, Snapshot};
pub use chain::{Audit, Bundle, Link, decision};
pub use error::JournalError;
pub use glance::ServiceGlance;
pub use letters::{OutboxStats, Queued};
pub use read::{Marks, Range, Reader, WatchFilter};
pub use write::{RoutedTo, Write};

/// Reads a row and writes it again: what can be read stays the same.
pub(crate) fn reread<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) {
    let Ok(read) = record::decode::<T>("row", record::VERSION, text) else { return };
    let again = record::encode("row", &read).and_then(|text| record::decode::<T>("row", record::VERSION, &text));
    assert!(again.as_ref().is_ok_and(|again| *again == read), "{read:?} became {again:?}");
}

/// The newest schema that this flipback reads and writes.
pub const SCHEMA: i64 = schema::VERSION;

/// The store's name and version, for people.
pub fn store_version() -> String {
    format!("SQLite {}", rusqlite::version())
}
