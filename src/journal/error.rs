//! What can go wrong with the store, by what is to be done about it.

use std::fmt;
use std::path::PathBuf;

#[derive(Debug)]
pub enum JournalError {
    /// Another daemon has the state directory.
    Locked {
        dir: PathBuf,
        pid: Option<u32>,
    },
    /// The state directory cannot be made, read or written.
    Directory {
        dir: PathBuf,
        error: std::io::Error,
    },
    /// No space left: the transaction was rolled back, the store is whole.
    Full,
    /// Not to be trusted any more: the process must end and recover from disk.
    Broken(String),
    /// Written by a newer flipback.
    NewerSchema {
        found: i64,
        known: i64,
    },
    /// A row that this version cannot read.
    Decode {
        what: String,
        error: String,
    },
    /// An attempt id was used before: the protocol forbids it, nothing was written.
    UsedTwice(String),
    Other(String),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { dir, pid } => {
                write!(f, "{} is in use by another flipback", dir.display())?;
                if let Some(pid) = pid {
                    write!(f, " (pid {pid})")?;
                }
                f.write_str(": stop that one first, or give this one its own state_dir")
            }
            Self::Directory { dir, error } => write!(f, "state directory {}: {error}", dir.display()),
            Self::Full => f.write_str("no space left for the journal: free some on the state directory's file system"),
            Self::Broken(why) => write!(
                f,
                "the journal is damaged or unreadable ({why}); it is left as it is: restore it from a backup, or move it away to begin anew"
            ),
            Self::NewerSchema { found, known } => {
                write!(f, "the journal has schema {found}, this flipback knows {known}: run the newer version")
            }
            Self::Decode { what, error } => write!(f, "journal: {what} cannot be read: {error}"),
            Self::UsedTwice(attempt) => write!(f, "journal: attempt {attempt} exists already"),
            Self::Other(why) => write!(f, "journal: {why}"),
        }
    }
}

impl std::error::Error for JournalError {}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase, ReadOnly, SystemIoFailure};
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::Full,
            Some(DatabaseCorrupt | NotADatabase | SystemIoFailure | CannotOpen | ReadOnly) => {
                Self::Broken(error.to_string())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}
