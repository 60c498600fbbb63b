//! `flipback test notify`: samples to real receivers, past the outbox, with what became of each.

use serde::{Deserialize, Serialize};

use super::channel::Delivery;
use super::message::{Enclosed, Message, Told};
use super::outbox::Outbox;
use super::route::kinds;
use super::sample;
use crate::domain::letter::Letter;
use crate::domain::notice::NoticeReason;
use crate::domain::switch::SwitchId;

/// What one channel said to one sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriedChannel {
    /// `receiver/kind of channel`.
    pub channel: String,
    /// The kind of notice.
    pub kind: String,
    pub error: Option<String>,
}

/// One that opens an incident, and the one that ends it: nothing of a trial stays open.
const PAIR: [NoticeReason; 2] = [NoticeReason::BreachedActing, NoticeReason::RolledBackRecovered];

/// Sends to one receiver or to all; without a kind the pair, with `all` every kind.
pub async fn try_out(outbox: &Outbox, only: Option<&str>, kind: Option<&str>) -> Result<Vec<TriedChannel>, String> {
    let desk = outbox.desk();
    let names: Vec<&str> = desk.receivers.iter().map(|r| r.name.as_str()).collect();
    if names.is_empty() {
        return Err("no receiver is configured: [email] with to, or [[receiver]]".into());
    }
    if let Some(only) = only.filter(|only| !names.contains(only)) {
        return Err(format!("there is no receiver {only:?}: they are {}", names.join(", ")));
    }
    let letters: Vec<Letter> = match kind {
        None => PAIR.iter().filter_map(|reason| sample::letter(reason.word())).collect(),
        Some("all") => sample::letters(),
        Some(kind) => vec![sample::letter(kind).ok_or_else(|| {
            format!("{kind:?} is no kind of notice: they are all, {}", kinds().collect::<Vec<_>>().join(", "))
        })?],
    };
    let now = (outbox.now)();
    let switch = SwitchId::try_new(format!("test-{}", now.as_millis() / 1000)).map_err(|error| error.to_string())?;
    // All at once: one that hangs must not cost the others their turn, nor the caller the patience.
    let mut under_way = Vec::new();
    for receiver in desk.receivers.iter().filter(|r| only.is_none_or(|only| only == r.name)) {
        for channel_name in &receiver.channels {
            let Some(channel) = desk.channels.get(channel_name).cloned() else { continue };
            let (name, switch, letters, desk) = (channel_name.clone(), switch.clone(), letters.clone(), desk.clone());
            under_way.push(tokio::spawn(async move {
                let mut tried = Vec::new();
                let mut earlier: Vec<Told> = Vec::new();
                for (n, letter) in (1u32..).zip(letters) {
                    let letter = sample::as_test(letter, &switch, n, now);
                    let enclosed = Enclosed { test: true, ..sample::enclosed(&letter, earlier.clone()) };
                    let message = Message::new(&letter, 0, enclosed, &desk.templates, &desk.host);
                    let error = match channel.send(&message, now).await {
                        Ok(()) => None,
                        Err(Delivery::Later(why) | Delivery::Never(why) | Delivery::NotBefore(why, _)) => Some(why),
                    };
                    tracing::info!(channel = name, kind = letter.kind(), error = error.as_deref(), "test notice");
                    let failed = error.is_some();
                    tried.push(TriedChannel { channel: name.clone(), kind: letter.kind().into(), error });
                    if failed {
                        break; // the next would say the same
                    }
                    if let Letter::Notice(notice) = &letter {
                        earlier.push(Told { n, reason: notice.reason, at: now });
                    }
                }
                tried
            }));
        }
    }
    let mut tried = Vec::new();
    for task in under_way {
        tried.extend(task.await.map_err(|error| error.to_string())?);
    }
    Ok(tried)
}
