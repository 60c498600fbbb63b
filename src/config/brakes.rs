//! `[brakes]` and `[fallback]`: how often flipback acts by itself, and who is told when mail does not go.

use super::settings::FallbackSettings;
use super::slots::argv;
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

pub(super) fn fallback(table: Table<'_, '_>) -> Option<FallbackSettings> {
    let exec = table.need("exec", "exec = [\"/usr/local/bin/page-somebody\"]").and_then(|at| argv(&at, &[]));
    let after = table
        .get("after")
        .and_then(|at| at.duration(Span::from_secs(10)..=Span::from_mins(24 * 60), "a page must be seen the same day"))
        .unwrap_or(Span::from_mins(5));
    let timeout = table
        .get("timeout")
        .and_then(|at| at.duration(Span::from_secs(1)..=Span::from_mins(5), "the next notice waits for it"))
        .unwrap_or(Span::from_secs(30));
    table.finish();
    Some(FallbackSettings { exec: exec?, after, timeout })
}
