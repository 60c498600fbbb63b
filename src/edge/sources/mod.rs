//! Where readings come from.

mod all;
mod client;
mod counts;
pub(crate) mod decode;
mod exact;
mod examine;
mod history;
mod native;
mod observe;
pub mod promql;
mod record;
mod replicas;
pub(crate) mod scrape;

pub use all::{Batch, Sources, client};
pub use client::{Prometheus, SourceError};
pub use counts::{check_answer_template, read_counts};
pub use examine::{Finding, Level};
pub use history::Pace;
pub use promql::{graph_link, shown_query};
pub use scrape::Scraper;
