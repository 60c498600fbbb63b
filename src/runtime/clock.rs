//! The one reader of time.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::time::{Span, Timestamp};

/// Now, in UTC.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(0) + Span::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
