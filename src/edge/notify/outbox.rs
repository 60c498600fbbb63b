//! The delivery loop: what is due is sent, and what became of it goes back to the journal.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::email::{Delivery, Mailer};
use super::render::{ShownQuery, render};
use crate::config::settings::FallbackSettings;
use crate::domain::notice::{Notice, NoticeKey, Severity};
use crate::domain::time::{Span, Timestamp};
use crate::edge::actuators::command;
use crate::edge::inbox::Inbox;
use crate::journal::{QueuedNotice, Reader, Write};
use crate::planted::{self, Bug};

const FIRST_RETRY: Span = Span::from_secs(15);
const RETRY_MAX: Span = Span::from_mins(10);
/// After three days a mail about a switch is history; it stays in the journal as dead.
const GIVE_UP_AFTER: Span = Span::from_mins(72 * 60);

/// Looked for at least this often, should a wake-up be lost.
const LOOK_EVERY: Span = Span::from_secs(5);

/// Sent in one go; the next look takes the rest.
const BATCH: u32 = 20;

/// When to try again after `tries` failures: 15 s · 2ⁿ up to ten minutes, up to a quarter more so that
/// many notices do not come at once. `None`: given up.
pub fn next_try(key: &NoticeKey, tries: u32, first_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if now.since(first_at) >= GIVE_UP_AFTER || planted::has(Bug::GiveUpEarly) {
        return None;
    }
    let wait = FIRST_RETRY.times(1 << tries.min(10)).min(RETRY_MAX);
    let mut hasher = DefaultHasher::new();
    (key, tries).hash(&mut hasher);
    let jitter = hasher.finish() % (wait.as_millis() / 4 + 1);
    Some(now + wait + Span::from_millis(jitter))
}

/// What becomes of a notice after a try to deliver it.
pub fn after_try(queued: &QueuedNotice, tried: Result<(), Delivery>, now: Timestamp) -> Write {
    let key = queued.notice.key.clone();
    match tried {
        Ok(()) => Write::NoticeDelivered { key, at: now },
        Err(_) if planted::has(Bug::MarkUnsent) => Write::NoticeDelivered { key, at: now },
        Err(Delivery::Never(error)) => Write::NoticeDead { key, at: now, error },
        Err(Delivery::Later(error)) => match next_try(&key, queued.tries, queued.first_at, now) {
            Some(next_at) => Write::NoticeDelayed { key, next_at, error },
            None => Write::NoticeDead { key, at: now, error: format!("given up after 72 h: {error}") },
        },
    }
}

/// Finds the queries that show a notice's signals.
pub type Queries = Box<dyn Fn(&Notice) -> Vec<ShownQuery> + Send + Sync>;

pub struct Outbox {
    pub reader: Reader,
    pub inbox: Inbox,
    pub mailer: Option<Mailer>,
    pub fallback: Option<FallbackSettings>,
    pub host: String,
    /// Queries to show with a notice.
    pub queries: Queries,
    /// Told when a notice was committed.
    pub wake: Arc<Notify>,
    pub now: fn() -> Timestamp,
}

impl Outbox {
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let delivered = match self.reader.due_notices((self.now)(), BATCH) {
                Ok(due) => self.deliver(due, &stop).await,
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be read");
                    0
                }
            };
            if delivered == BATCH as usize {
                continue;
            }
            let next = self.reader.next_notice_at().ok().flatten();
            let wait = next.map_or(LOOK_EVERY, |at| at.since((self.now)())).clamp(Span::from_millis(50), LOOK_EVERY);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait.to_std()) => {}
            }
        }
    }

    async fn deliver(&self, due: Vec<QueuedNotice>, stop: &CancellationToken) -> usize {
        let count = due.len();
        for queued in due {
            if stop.is_cancelled() {
                break;
            }
            let write = self.attempt(&queued).await;
            let undelivered = !matches!(write, Write::NoticeDelivered { .. });
            let dead = matches!(write, Write::NoticeDead { .. });
            // Marked before the next look, or it would be sent again.
            self.keep(write).await;
            if undelivered {
                self.fall_back(&queued, dead).await;
            }
        }
        count
    }

    async fn keep(&self, write: Write) {
        while self.inbox.write_synced(write.clone()).await == Err(crate::edge::inbox::NotTaken::Busy) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// A page that does not get out by mail for a while, and every notice that is given up, goes the other
    /// way once. Mail is tried on all the same.
    async fn fall_back(&self, queued: &QueuedNotice, dead: bool) {
        let (notice, Some(fallback)) = (&queued.notice, &self.fallback) else { return };
        let late = (self.now)().since(queued.first_at) >= fallback.after;
        let page = notice.reason.severity() == Severity::Page;
        if queued.fell_back || !(dead || page && late) {
            return;
        }
        let rendered = render(notice, &(self.queries)(notice), &self.host);
        let text = format!("{}\n\n{}", rendered.subject, rendered.text);
        match command::run_with(&fallback.exec, Some(&text), fallback.timeout).await {
            Ok(finished) if finished.status.success() => {
                tracing::warn!(notice = %notice.key, command = %fallback.exec, "notice told by the fallback");
                self.keep(Write::NoticeFellBack { key: notice.key.clone(), at: (self.now)() }).await;
            }
            Ok(finished) => tracing::error!(notice = %notice.key, status = %finished.status, "the fallback failed"),
            Err(error) => tracing::error!(notice = %notice.key, %error, "the fallback failed"),
        }
    }

    async fn attempt(&self, queued: &QueuedNotice) -> Write {
        let notice = &queued.notice;
        let rendered = render(notice, &(self.queries)(notice), &self.host);
        if queued.tries == 0 {
            announce(notice, &rendered.subject);
        }
        let key = notice.key.clone();
        let Some(mailer) = &self.mailer else {
            tracing::info!(notice = %key, text = %rendered.text, "no [email] is configured: the notice is only logged");
            return Write::NoticeDelivered { key, at: (self.now)() };
        };
        let write = after_try(queued, mailer.send(notice, &rendered).await, (self.now)());
        match &write {
            Write::NoticeDelayed { error, next_at, .. } => {
                tracing::warn!(notice = %key, %error, %next_at, "notice not delivered yet");
            }
            Write::NoticeDead { error, .. } => tracing::error!(notice = %key, %error, "notice given up"),
            _ => tracing::info!(notice = %key, reason = notice.reason.word(), "notice delivered"),
        }
        write
    }
}

/// One line in the log for every notice, whatever becomes of its delivery.
fn announce(notice: &Notice, subject: &str) {
    let (reason, switch, service) = (notice.reason.word(), &notice.watch.id, &notice.watch.switch.service);
    match notice.reason.severity() {
        Severity::Info => tracing::info!(reason, %switch, %service, subject, "notice"),
        Severity::Warning => tracing::warn!(reason, %switch, %service, subject, "notice"),
        Severity::Page => tracing::error!(reason, %switch, %service, subject, "notice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::switch::SwitchId;

    proptest::proptest! {
        #[test]
        fn retries_grow_to_ten_minutes_and_end_after_three_days(tries in 0u32..1000, age_s in 0u64..400_000) {
            let key = NoticeKey { switch: SwitchId::try_new("checkout-1").unwrap(), n: 1 };
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
}
