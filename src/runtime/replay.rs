//! `journal verify`: the chain of hashes, and the same inputs through this version's engine once more.

use serde::Serialize;

use crate::engine::Engine;
use crate::journal::{Audit, JournalError, Reader, decision};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    #[serde(flatten)]
    pub audit: Audit,
    /// Inputs whose decisions were made anew and compared.
    pub replayed: u64,
    /// Snapshots that were compared with the state that the inputs give.
    pub snapshots: u64,
    /// Inputs that another version decided about: their hashes are checked, their decisions are not.
    pub by_other_versions: u64,
    /// Where this version decides otherwise, in words.
    pub differ: Vec<String>,
}

impl Verified {
    pub fn holds(&self) -> bool {
        self.audit.broken.is_empty() && self.differ.is_empty()
    }
}

/// Reads the whole journal, beside a running daemon or without one.
pub fn verify(reader: &Reader) -> Result<Verified, JournalError> {
    /// More than some say nothing new.
    const DIFFER_MAX: usize = 20;
    let engine = std::cell::RefCell::new(Engine::new());
    let (mut replayed, mut snapshots, mut others, mut differ) = (0, 0, 0, Vec::new());
    let begin = |state: Option<String>| {
        if let Some(state) = state {
            *engine.borrow_mut() = serde_json::from_str(&state)
                .map_err(|error| JournalError::Decode { what: "the anchor".into(), error: error.to_string() })?;
        }
        Ok(())
    };
    let audit = reader.audit(begin, |link| {
        let mut engine = engine.borrow_mut();
        let commands = engine.handle(link.at, &link.input);
        let _ = engine.take_views();
        if link.version != env!("CARGO_PKG_VERSION") {
            others += 1;
            return Ok(());
        }
        let decided = commands.iter().map(decision).collect::<Result<Vec<_>, _>>()?;
        replayed += 1;
        if decided != link.decisions && differ.len() < DIFFER_MAX {
            differ.push(format!("input {} of {}: other decisions than those that stand there", link.seq, link.at));
        }
        if let Some(state) = &link.snapshot {
            snapshots += 1;
            let ours = serde_json::to_string(&*engine).unwrap_or_default();
            if ours != *state && differ.len() < DIFFER_MAX {
                differ.push(format!("the snapshot after input {} is not the state that the inputs give", link.seq));
            }
        }
        Ok(())
    })?;
    Ok(Verified { audit, replayed, snapshots, by_other_versions: others, differ })
}
