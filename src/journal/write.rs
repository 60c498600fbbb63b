//! Writes that are no input of the engine: they go through the one writer all the same.

use crate::domain::notice::NoticeKey;
use crate::domain::switch::ServiceName;
use crate::domain::time::Timestamp;
use crate::engine::message::RecordedCells;

#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Cells(RecordedCells),
    NoticeDelivered {
        key: NoticeKey,
        at: Timestamp,
    },
    /// A delivery failed for now.
    NoticeDelayed {
        key: NoticeKey,
        next_at: Timestamp,
        error: String,
    },
    /// The notice went the other way; mail goes on being tried.
    NoticeFellBack {
        key: NoticeKey,
        at: Timestamp,
    },
    /// A delivery failed for good.
    NoticeDead {
        key: NoticeKey,
        at: Timestamp,
        error: String,
    },
    /// A range that must not serve as a baseline.
    Invalidate {
        service: ServiceName,
        from: Timestamp,
        to: Timestamp,
        by: String,
        why: String,
    },
    /// The range to judge by until it is unpinned.
    Pin {
        service: ServiceName,
        from: Timestamp,
        to: Timestamp,
        by: String,
        why: String,
    },
    Unpin {
        service: ServiceName,
        by: String,
    },
    /// Bound the store: old cells, inputs behind the last snapshot, delivered notices.
    Prune {
        now: Timestamp,
    },
}
