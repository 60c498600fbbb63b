//! Writes that are no input of the engine: they go through the one writer all the same.

use crate::domain::letter::{DeliveryKey, Letter, LetterKey};
use crate::domain::switch::{ServiceName, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::RecordedCells;

/// A channel, and how often it reminds of what still stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedTo {
    pub channel: String,
    pub repeat: Option<Span>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Cells(RecordedCells),
    /// What the outbox itself has to say.
    LetterPosted {
        letter: Box<Letter>,
        at: Timestamp,
    },
    /// Which channels a letter goes to; none is an answer too.
    LetterRouted {
        letter: LetterKey,
        to: Vec<RoutedTo>,
        at: Timestamp,
    },
    /// The letter went the other way; its channels go on being tried.
    LetterFellBack {
        letter: LetterKey,
        at: Timestamp,
    },
    Delivered {
        key: DeliveryKey,
        at: Timestamp,
    },
    /// A delivery failed for now.
    Delayed {
        key: DeliveryKey,
        next_at: Timestamp,
        error: String,
    },
    /// A delivery failed for good.
    Dead {
        key: DeliveryKey,
        at: Timestamp,
        error: String,
    },
    /// A reminder of what stands no longer.
    NotNeeded {
        key: DeliveryKey,
    },
    /// Somebody looks after it: no more reminders of this switch.
    Acknowledged {
        switch: SwitchId,
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
