//! Where readings come from.

mod client;
mod decode;
mod exact;
mod examine;
mod history;
mod native;
mod observe;
pub mod promql;
mod record;

pub use client::{Prometheus, SourceError};
pub use examine::{Finding, Level};
pub use history::Pace;
pub use promql::{graph_link, shown_query};
