//! `[brakes]`: how often flipback acts by itself.

use super::table::{At, Table};
use crate::domain::brakes::{Brake, Brakes};
use crate::domain::time::Span;

pub(super) fn brakes(table: Table<'_, '_>) -> Option<Brakes> {
    let default = Brakes::default();
    let per_service = brake(table.get("per_service"), default.per_service);
    let fleet = brake(table.get("fleet"), default.fleet);
    let per_version = brake(table.get("per_version"), default.per_version);
    table.finish();
    Some(Brakes { per_service: per_service?, fleet: fleet?, per_version: per_version? })
}

fn brake(at: Option<At<'_, '_>>, default: Brake) -> Option<Brake> {
    let Some(at) = at else { return Some(default) };
    let table = at.table()?;
    let most = table
        .need("most", "{ most = 1, within = \"30m\" }")
        .and_then(|at| at.whole(1..=100, "to stop flipback from acting at all: mode = \"observe\", or disarm"));
    let within = table
        .need("within", "{ most = 1, within = \"30m\" }")
        .and_then(|at| at.duration(Span::from_mins(1)..=Span::from_mins(7 * 24 * 60), "a brake must hold for a while"));
    table.finish();
    Some(Brake { most: most?, within: within? })
}
