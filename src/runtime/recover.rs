//! From the journal back to an engine: snapshot, then the inputs after it.

use crate::engine::Engine;
use crate::journal::{JournalError, Recovered};
use crate::planted::{self, Bug};

/// The engine as it was after the last commit. The commands of replayed inputs were carried out (or are
/// asked for again by `Input::Started`), so they are dropped here.
pub fn engine(recovered: &Recovered) -> Result<Engine, JournalError> {
    let mut engine = match &recovered.snapshot {
        None => Engine::new(),
        Some(snapshot) => serde_json::from_str(&snapshot.state_json)
            .map_err(|error| JournalError::Decode { what: "the snapshot".into(), error: error.to_string() })?,
    };
    let dropped = usize::from(planted::has(Bug::ReplayDropsLast));
    for (at, input) in recovered.tail.iter().take(recovered.tail.len() - dropped.min(recovered.tail.len())) {
        let _carried_out = engine.handle(*at, input);
    }
    let _ = engine.take_views();
    #[cfg(test)]
    if planted::has(Bug::ForgetBrakes) {
        engine.forget_brakes();
    }
    Ok(engine)
}
