//! What a watch sees: the cursor over a slot's counts, and blindness.

use serde::{Deserialize, Serialize};

use super::message::CommandId;
use crate::domain::time::{Span, Timestamp};
use crate::planted::{self, Bug};

/// Blindness is told after three ticks without a reading, but not within the first twenty seconds
/// (one slow answer at a short tick) and in any case before two minutes are over.
const BLIND_AFTER_MIN: Span = Span::from_secs(20);
const BLIND_AFTER_MAX: Span = Span::from_secs(110);

/// A first answer takes at most five seconds.
const AWAKE_MIN: Span = Span::from_secs(5);

/// How far a slot's counts have been read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// End of the last good tick, on Prometheus's clock: the next one begins here.
    pub from: Timestamp,
    /// Requests per second in the last good tick.
    pub rate: Option<f64>,
    asked: Option<(CommandId, Timestamp)>,
}

impl Cursor {
    pub fn at(from: Timestamp) -> Self {
        Self { from, rate: None, asked: None }
    }

    pub fn ask(&mut self, id: CommandId, at: Timestamp) {
        self.asked = Some((id, at));
    }

    pub fn asked_within(&self, now: Timestamp, limit: Span) -> bool {
        self.asked.as_ref().is_some_and(|(_, at)| now.since(*at) < limit)
    }

    /// Before anything was read: what was set by our clock is put on Prometheus's.
    pub fn set_by(&mut self, skew_ms: i64) {
        if self.rate.is_none() {
            self.from = self.from.shifted(skew_ms);
        }
    }

    /// Whether a question asked at or after this instant is still under way.
    pub fn asked_since(&self, since: Timestamp) -> bool {
        self.asked.as_ref().is_some_and(|(_, at)| *at >= since)
    }

    /// Whether `id` is the question under way; it is answered with this.
    pub fn answered(&mut self, id: &CommandId) -> bool {
        let ours = self.asked.as_ref().is_some_and(|(asked, _)| asked == id);
        if ours {
            self.asked = None;
        }
        ours
    }

    pub fn forget_question(&mut self) {
        self.asked = None;
    }

    pub fn advance(&mut self, to: Timestamp, requests: f64) {
        let seconds = to.since(self.from).as_secs_f64();
        self.rate = (seconds > 0.0).then(|| requests / seconds);
        self.from = self.from.max(to);
    }
}

/// Whether readings of the new slot come in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sight {
    /// Our clock at the last reading (or at the opening).
    last_seen: Timestamp,
    /// When this process took the watch up.
    awake_since: Timestamp,
    /// Time covered by good readings.
    valid: Span,
    /// Ticks without a new sample since the last reading.
    empties: u32,
    why: String,
    told: bool,
}

impl Sight {
    pub fn new(now: Timestamp) -> Self {
        Self {
            last_seen: now,
            awake_since: now,
            valid: Span::ZERO,
            empties: 0,
            why: "no reading yet".into(),
            told: false,
        }
    }

    /// A good reading that covers `covered`; true when it ends a blindness that people were told of.
    pub fn saw(&mut self, now: Timestamp, covered: Span) -> bool {
        self.last_seen = now;
        self.valid = self.valid + covered;
        self.empties = 0;
        std::mem::take(&mut self.told)
    }

    /// No new sample: after two intervals that is absence.
    pub fn empty(&mut self, now: Timestamp, step: Span) {
        self.empties += 1;
        if now.since(self.last_seen) > step.times(2) {
            self.why = format!("no new sample for {}", Span::from_secs(now.since(self.last_seen).as_millis() / 1000));
        }
    }

    pub fn missing(&mut self, why: &str) {
        why.clone_into(&mut self.why);
    }

    /// Says once why nothing is seen, when it has been so for long enough.
    pub fn goes_blind(&mut self, now: Timestamp, step: Span) -> Option<String> {
        let limit = step.times(3).clamp(BLIND_AFTER_MIN, BLIND_AFTER_MAX);
        if planted::has(Bug::SilentBlind)
            || self.told
            || now.since(self.last_seen) < limit
            || now.since(self.awake_since) < AWAKE_MIN
        {
            return None;
        }
        self.told = true;
        let since = self.last_seen;
        Some(format!("no readings of the new slot since {since}: {}", self.why))
    }

    /// After a restart the source is given time for an answer before it is blamed. What was not seen
    /// stays not seen: a daemon that dies every minute must not be silent about it.
    pub fn woke(&mut self, now: Timestamp) {
        self.awake_since = now;
    }

    pub fn is_blind(&self) -> bool {
        self.told
    }

    pub fn why(&self) -> &str {
        &self.why
    }

    pub fn valid(&self) -> Span {
        self.valid
    }
}
