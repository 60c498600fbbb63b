//! The delivery loops: letters are routed once, then each channel delivers its own at its own pace; what became of
//! each goes back to the journal.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::channel::{Channel, Delivery};
use super::charts;
use super::desk::{Desk, Queries};
use super::message::{Enclosed, Message, Told};
use crate::domain::letter::{DeliveryKey, Letter, Undeliverable};
use crate::domain::notice::{Notice, NoticeReason, Severity, Standing};
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::PhaseWord;
use crate::edge::actuators::command;
use crate::edge::inbox::{Inbox, NotTaken};
use crate::journal::{Queued, Reader, WatchFilter, Write};
use crate::planted::{self, Bug};

const FIRST_RETRY: Span = Span::from_secs(15);
const RETRY_MAX: Span = Span::from_mins(10);
/// After three days a message about a switch is history; it stays in the journal as dead.
const GIVE_UP_AFTER: Span = Span::from_mins(72 * 60);

/// Looked for at least this often, should a wake-up be lost.
const LOOK_EVERY: Span = Span::from_secs(5);

/// Sent in one go; the next look takes the rest.
const BATCH: u32 = 20;

/// When to try again after `tries` failures: 15 s · 2ⁿ up to ten minutes, up to a quarter more so that
/// many notices do not come at once. `None`: given up.
pub fn next_try(key: &DeliveryKey, tries: u32, first_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if now.since(first_at) >= GIVE_UP_AFTER || planted::has(Bug::GiveUpEarly) {
        return None;
    }
    let wait = FIRST_RETRY.times(1 << tries.min(10)).min(RETRY_MAX);
    let mut hasher = DefaultHasher::new();
    (key, tries).hash(&mut hasher);
    let jitter = hasher.finish() % (wait.as_millis() / 4 + 1);
    Some(now + wait + Span::from_millis(jitter))
}

/// What becomes of a delivery after a try.
pub fn after_try(queued: &Queued, tried: Result<(), Delivery>, now: Timestamp) -> Write {
    let key = queued.key.clone();
    match tried {
        Ok(()) => Write::Delivered { key, at: now },
        Err(_) if planted::has(Bug::MarkUnsent) => Write::Delivered { key, at: now },
        Err(Delivery::Never(error)) => Write::Dead { key, at: now, error },
        Err(Delivery::Later(error)) => match next_try(&key, queued.tries, queued.first_at, now) {
            Some(next_at) => Write::Delayed { key, next_at, error },
            None => Write::Dead { key, at: now, error: format!("given up after 72 h: {error}") },
        },
        Err(Delivery::NotBefore(error, wait)) => match next_try(&key, 0, queued.first_at, now) {
            Some(_) => Write::Delayed { key, next_at: now + wait, error },
            None => Write::Dead { key, at: now, error: format!("given up after 72 h: {error}") },
        },
    }
}

/// Whether what a page said still holds: a reminder of what is over wakes people for nothing.
pub fn still_stands(notice: &Notice, told: &[Told], phase: PhaseWord, newer_watch: bool) -> bool {
    if notice.reason.standing() != Standing::Stands || told.iter().any(|later| later.n > notice.key.n) {
        return false;
    }
    match notice.reason {
        NoticeReason::ApprovalWanted => phase == PhaseWord::Asking,
        NoticeReason::Blind | NoticeReason::TrafficLost | NoticeReason::Quarantined => phase != PhaseWord::Ended,
        // A newer switch of the service has its own story.
        _ => !newer_watch,
    }
}

#[derive(Clone)]
pub struct Outbox {
    pub reader: Reader,
    pub inbox: Inbox,
    pub desk: Arc<RwLock<Arc<Desk>>>,
    pub queries: Queries,
    pub now: fn() -> Timestamp,
    /// Told when something was routed.
    pub routed: watch::Sender<()>,
}

impl Outbox {
    pub fn desk(&self) -> Arc<Desk> {
        self.desk.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Routes what was committed; `wake` tells of it.
    pub async fn route(self, wake: Arc<Notify>, stop: CancellationToken) {
        loop {
            match self.reader.unrouted(BATCH) {
                Ok(letters) if !letters.is_empty() => {
                    for letter in letters {
                        self.route_one(&letter).await;
                    }
                    let _ = self.routed.send(());
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "the outbox cannot be read"),
            }
            if let Err(error) = self.take_back_orphans().await {
                tracing::error!(%error, "the outbox cannot be read");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY.to_std()) => {}
            }
        }
    }

    async fn route_one(&self, letter: &Letter) {
        let desk = self.desk();
        let told_before = self.told_before(letter);
        let to = desk.route(letter, &told_before);
        let message = Message::new(letter, 0, Enclosed::default(), &desk.templates, &desk.host);
        announce(&message);
        if to.is_empty() {
            match &desk.route {
                None => {
                    tracing::info!(
                        notice = %letter.key(), text = %message.text,
                        "no receiver is configured: the notice is only logged"
                    );
                }
                // Of what was given up the fallback hears by the notice itself.
                Some(_) => tracing::info!(notice = %letter.key(), "no route takes the notice: it is only logged"),
            }
        }
        self.keep(Write::LetterRouted { letter: letter.key(), to, at: (self.now)() }).await;
    }

    /// Channels that were told of what this letter settles.
    fn told_before(&self, letter: &Letter) -> Vec<String> {
        let Letter::Notice(notice) = letter else { return Vec::new() };
        if notice.reason.standing() != Standing::Settles {
            return Vec::new();
        }
        self.reader.channels_told(&notice.key.switch).unwrap_or_default()
    }

    /// Deliveries to channels that the configuration has no longer are given up, which is told.
    async fn take_back_orphans(&self) -> Result<(), crate::journal::JournalError> {
        let desk = self.desk();
        for channel in self.reader.waiting_channels()?.into_iter().filter(|c| !desk.channels.contains_key(c)) {
            for queued in self.reader.due(&channel, Timestamp::from_millis(i64::MAX), BATCH)? {
                let error = format!("the configuration has no {channel} any more");
                if queued.key.nth > 0 {
                    self.keep(Write::NotNeeded { key: queued.key }).await;
                } else {
                    self.give_up(&queued, error).await;
                }
            }
        }
        Ok(())
    }

    /// One channel's own loop. `anew` drops what is under way (the configuration has changed; it is sent again by the
    /// next loop, and carries the same id), `stop` lets it end.
    async fn deliver(self, name: String, channel: Arc<Channel>, anew: CancellationToken, stop: CancellationToken) {
        let mut routed = self.routed.subscribe();
        loop {
            let due = match self.reader.due(&name, (self.now)(), BATCH) {
                Ok(due) => due,
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be read");
                    Vec::new()
                }
            };
            let full = due.len() == BATCH as usize;
            for queued in due {
                if stop.is_cancelled() {
                    return;
                }
                tokio::select! {
                    () = anew.cancelled() => return,
                    () = self.deliver_one(&queued, &channel) => {}
                }
            }
            if full {
                continue;
            }
            let next = self.reader.next_due(&name).ok().flatten();
            let wait = next.map_or(LOOK_EVERY, |at| at.since((self.now)())).clamp(Span::from_millis(50), LOOK_EVERY);
            tokio::select! {
                () = anew.cancelled() => return,
                () = stop.cancelled() => return,
                _ = routed.changed() => {}
                () = tokio::time::sleep(wait.to_std()) => {}
            }
        }
    }

    async fn deliver_one(&self, queued: &Queued, channel: &Channel) {
        if queued.key.nth > 0 && !self.needed(queued) {
            return self.keep(Write::NotNeeded { key: queued.key.clone() }).await;
        }
        let message = self.message(&queued.letter, queued.key.nth, channel.carries_pictures()).await;
        let tried = channel.send(&message, (self.now)()).await;
        let write = after_try(queued, tried, (self.now)());
        let key = &queued.key;
        match &write {
            Write::Delayed { error, next_at, .. } => {
                tracing::warn!(notice = %key.letter, channel = key.channel, %error, %next_at, "notice not delivered yet");
            }
            Write::Dead { error, .. } => {
                return self.give_up(queued, error.clone()).await;
            }
            _ => {
                let reason = queued.letter.kind();
                tracing::info!(notice = %key.letter, channel = key.channel, reason, "notice delivered");
            }
        }
        let undelivered = !matches!(write, Write::Delivered { .. });
        // Marked before the next look, or it would be sent again.
        self.keep(write).await;
        let desk = self.desk();
        let late = desk.fallback.as_ref().is_some_and(|f| (self.now)().since(queued.first_at) >= f.after);
        if undelivered && late && key.nth == 0 && queued.letter.severity() == Severity::Page {
            self.fall_back(&queued.letter, queued.fell_back, &message).await;
        }
    }

    /// A delivery that will not be: told by the other channels, and by the fallback.
    async fn give_up(&self, queued: &Queued, error: String) {
        let key = &queued.key;
        tracing::error!(notice = %key.letter, channel = key.channel, %error, "notice given up");
        if let Letter::Notice(notice) = &queued.letter {
            let letter = Letter::Undeliverable(Box::new(Undeliverable {
                at: (self.now)(),
                of: (**notice).clone(),
                channel: key.channel.clone(),
                tries: queued.tries + 1,
                since: queued.first_at,
                error: error.clone(),
            }));
            // Before the mark: a crash between them tells it twice rather than never.
            self.keep(Write::LetterPosted { letter: Box::new(letter), at: (self.now)() }).await;
        }
        self.keep(Write::Dead { key: key.clone(), at: (self.now)(), error }).await;
        if key.nth == 0 {
            let message = self.message(&queued.letter, 0, false).await;
            self.fall_back(&queued.letter, queued.fell_back, &message).await;
        }
    }

    fn needed(&self, queued: &Queued) -> bool {
        let Letter::Notice(notice) = &queued.letter else { return false };
        if (self.now)().since(notice.at) >= GIVE_UP_AFTER {
            return false;
        }
        let told = self.told(&notice.key.switch).unwrap_or_default();
        // What cannot be read is no reason to be silent.
        let Ok(Some(view)) = self.reader.watch(&notice.key.switch) else { return true };
        let newest = WatchFilter { service: Some(view.switch.service.clone()), limit: 5, ..WatchFilter::default() };
        let newer = self.reader.watches(&newest).unwrap_or_default();
        let newer = newer.iter().any(|w| w.opened_at > view.opened_at && !w.is_drill());
        still_stands(notice, &told, view.phase, newer)
    }

    fn told(&self, switch: &crate::domain::switch::SwitchId) -> Result<Vec<Told>, crate::journal::JournalError> {
        let all = self.reader.told_of(switch)?;
        Ok(all.into_iter().map(|(n, reason, at)| Told { n, reason, at }).collect())
    }

    /// The letter with all that goes beside it.
    pub async fn message(&self, letter: &Letter, nth: u32, pictures: bool) -> Message {
        let (this, own) = (self.clone(), letter.clone());
        let made = tokio::task::spawn_blocking(move || {
            let desk = this.desk();
            let mut enclosed = Enclosed { links: desk.links(&own), ..Enclosed::default() };
            if let Letter::Notice(notice) = &own {
                enclosed.queries = (this.queries)(&notice.watch, notice.at);
                enclosed.charts = charts::of(&this.reader, notice, pictures);
                let told = this.told(&notice.key.switch).unwrap_or_default();
                enclosed.earlier = told.into_iter().filter(|t| t.n < notice.key.n).collect();
            }
            Message::new(&own, nth, enclosed, &desk.templates, &desk.host)
        });
        match made.await {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(%error, "a message was not made whole");
                let desk = self.desk();
                Message::new(letter, nth, Enclosed::default(), &desk.templates, &desk.host)
            }
        }
    }

    async fn keep(&self, write: Write) {
        while self.inbox.write_synced(write.clone()).await == Err(NotTaken::Busy) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A page that does not get out for a while, and every notice that is given up, goes the other way once. Its
    /// channels are tried on all the same.
    async fn fall_back(&self, letter: &Letter, fell_back: bool, message: &Message) {
        let desk = self.desk();
        let Some(fallback) = desk.fallback.as_ref().filter(|_| !fell_back) else { return };
        match command::run_with(&fallback.exec, Some(&message.whole()), fallback.timeout).await {
            Ok(finished) if finished.status.success() => {
                tracing::warn!(notice = %letter.key(), command = %fallback.exec, "notice told by the fallback");
                self.keep(Write::LetterFellBack { letter: letter.key(), at: (self.now)() }).await;
            }
            Ok(finished) => {
                tracing::error!(notice = %letter.key(), status = %finished.status, "the fallback failed");
            }
            Err(error) => tracing::error!(notice = %letter.key(), %error, "the fallback failed"),
        }
    }
}

/// The loops of all channels; begun anew when the configuration changes.
pub struct Loops {
    pub outbox: Outbox,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    /// Ends the loops that run.
    pub anew: std::sync::Mutex<CancellationToken>,
    pub runtime: tokio::runtime::Handle,
}

impl Loops {
    pub fn begin(&self) {
        let mut anew = self.anew.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        anew.cancel();
        *anew = CancellationToken::new();
        for (name, channel) in &self.outbox.desk().channels {
            let task = self.outbox.clone().deliver(name.clone(), channel.clone(), anew.clone(), self.stop.clone());
            self.tasks.spawn_on(task, &self.runtime);
        }
    }
}

/// One line in the log for every notice, whatever becomes of its delivery: it answers the five questions alone.
fn announce(message: &Message) {
    let page = &message.page;
    let (reason, switch, service, subject) = (page.kind, &page.switch, &page.service, &message.subject);
    let answer = |i: usize| page.answers.get(i).map_or("", |(_, a)| a.as_str());
    let (broke, sure, done, worked, now) = (answer(0), answer(1), answer(2), answer(3), answer(4));
    let next = &page.command;
    match message.letter.severity() {
        Severity::Info => {
            tracing::info!(reason, %switch, %service, subject, broke, sure, done, worked, now, next, "notice");
        }
        Severity::Warning => {
            tracing::warn!(reason, %switch, %service, subject, broke, sure, done, worked, now, next, "notice");
        }
        Severity::Page => {
            tracing::error!(reason, %switch, %service, subject, broke, sure, done, worked, now, next, "notice");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::letter::LetterKey;
    use crate::edge::notify::sample;

    proptest::proptest! {
        #[test]
        fn retries_grow_to_ten_minutes_and_end_after_three_days(tries in 0u32..1000, age_s in 0u64..400_000) {
            let key = DeliveryKey { letter: LetterKey("checkout-1.n1".into()), channel: "a/email".into(), nth: 0 };
            let first = Timestamp::from_millis(0);
            let now = first + Span::from_secs(age_s);
            match next_try(&key, tries, first, now) {
                None => proptest::prop_assert!(age_s >= 72 * 3600),
                Some(at) => {
                    let wait = at.since(now);
                    proptest::prop_assert!(age_s < 72 * 3600 && wait >= FIRST_RETRY);
                    proptest::prop_assert!(wait <= RETRY_MAX + Span::from_secs(150));
                    proptest::prop_assert_eq!(next_try(&key, tries, first, now), Some(at));
                }
            }
        }
    }

    #[test]
    fn what_the_other_side_says_of_when_is_kept_and_does_not_last_for_ever() {
        let letter = sample::letter("blind").unwrap();
        let key = DeliveryKey { letter: letter.key(), channel: "a/slack".into(), nth: 0 };
        let first_at = Timestamp::from_millis(0);
        let queued = Queued { key, letter, tries: 3, first_at, repeat: None, fell_back: false };
        let slow = || Err(Delivery::NotBefore("429".into(), Span::from_secs(30)));
        let now = first_at + Span::from_secs(100);
        assert!(
            matches!(after_try(&queued, slow(), now), Write::Delayed { next_at, .. } if next_at == now + Span::from_secs(30))
        );
        let late = first_at + GIVE_UP_AFTER;
        assert!(matches!(after_try(&queued, slow(), late), Write::Dead { .. }));
        assert!(matches!(after_try(&queued, Err(Delivery::Never("400".into())), now), Write::Dead { .. }));
    }

    #[test]
    fn a_reminder_comes_only_of_what_still_stands() {
        let of = |reason| sample::notice(reason).unwrap();
        let stands = |reason, phase, newer| still_stands(of(reason), &[], phase, newer);
        assert!(stands(NoticeReason::ApprovalWanted, PhaseWord::Asking, false));
        assert!(!stands(NoticeReason::ApprovalWanted, PhaseWord::RollingBack, false), "it was answered");
        assert!(stands(NoticeReason::Blind, PhaseWord::Soaking, false));
        assert!(!stands(NoticeReason::Blind, PhaseWord::Ended, false));
        assert!(stands(NoticeReason::RollbackFailed, PhaseWord::Ended, false), "somebody must look");
        assert!(!stands(NoticeReason::RollbackFailed, PhaseWord::Ended, true), "the next switch has its own story");
        assert!(!stands(NoticeReason::RolledBackRecovered, PhaseWord::Ended, false), "all is well");
        let notice = of(NoticeReason::Withheld);
        let told = |n| Told { n, reason: NoticeReason::Drift, at: notice.at };
        assert!(still_stands(notice, &[told(notice.key.n)], PhaseWord::Ended, false));
        assert!(
            !still_stands(notice, &[told(notice.key.n + 1)], PhaseWord::Ended, false),
            "a later word took its place"
        );
    }
}
