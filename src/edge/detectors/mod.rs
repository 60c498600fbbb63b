//! Switches that nobody announced: each detector looks at one thing again and again and tells the engine what it
//! shows, when that has changed. What it means is decided there.

mod file;
pub(crate) mod output;
mod shares;

use std::sync::Arc;
use std::sync::RwLock;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actuators::command;
use super::haproxy;
use super::inbox::Inbox;
use super::metrics::{Metrics, OfDetector};
use super::sources::Sources;
use crate::config::settings::{DetectorSettings, Look, Shows};
use crate::domain::switch::{Percent, Sighting, Slot, Version};
use crate::engine::message::Input;

/// What is seen must be seen twice before it counts: a tool that moves traffic in two commands passes through a
/// state that nobody meant. The second look comes after this, or sooner where looks are more frequent.
const SECOND_LOOK: Duration = Duration::from_millis(250);

/// A look that takes longer is none.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Starts the loops; they end with `stop`.
pub fn start(
    all: &[DetectorSettings],
    source: &Arc<RwLock<Sources>>,
    inbox: &Inbox,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    runtime: &tokio::runtime::Handle,
    stop: &CancellationToken,
) {
    for settings in all {
        let detector = Detector {
            settings: settings.clone(),
            source: source.clone(),
            inbox: inbox.clone(),
            metrics: metrics.clone(),
        };
        let stop = stop.clone();
        tasks.spawn_on(async move { detector.run(stop).await }, runtime);
    }
}

/// One look; `None`: the traffic is on its way from one slot to another.
pub async fn look(settings: &DetectorSettings, source: &Arc<RwLock<Sources>>) -> Result<Option<Sighting>, String> {
    let looking = one_look(settings, source);
    let look = tokio::time::timeout(LOOK_LIMIT, looking).await;
    look.unwrap_or_else(|_| Err(format!("no answer within {} s", LOOK_LIMIT.as_secs())))
}

struct Detector {
    settings: DetectorSettings,
    source: Arc<RwLock<Sources>>,
    inbox: Inbox,
    metrics: Arc<Metrics>,
}

/// What a loop remembers between its looks.
#[derive(Default)]
struct Seen {
    told: Option<Sighting>,
    /// Seen once, and not told yet.
    once: Option<Sighting>,
}

impl Seen {
    /// What is to be told now.
    fn take(&mut self, now: Sighting) -> Option<Sighting> {
        if self.told.as_ref() == Some(&now) {
            self.once = None;
            return None;
        }
        if self.once.as_ref() == Some(&now) {
            return self.once.take();
        }
        self.once = Some(now);
        None
    }
}

impl Detector {
    async fn run(self, stop: CancellationToken) {
        let s = &self.settings;
        let of = OfDetector { service: s.service.to_string(), detector: s.name.clone() };
        let mut seen = Seen::default();
        let mut sees: Option<bool> = None;
        loop {
            let look = look(s, &self.source).await;
            self.metrics.detector_up.get_or_create(&of).set(i64::from(look.is_ok()));
            match look {
                Ok(now) => {
                    if sees.replace(true) == Some(false) {
                        tracing::info!(service = %s.service, detector = s.name, "the detector sees again");
                    }
                    match now.map(|now| seen.take(now)) {
                        Some(Some(new)) => self.tell(&mut seen, new),
                        Some(None) => {}
                        None => seen.once = None,
                    }
                }
                Err(why) => {
                    // Once: a detector that cannot see says so, and the gauge goes on saying it.
                    if sees.replace(false) != Some(false) {
                        tracing::warn!(service = %s.service, detector = s.name, %why, "the detector cannot see");
                    }
                    seen.once = None;
                }
            }
            let every = s.every.to_std();
            let pause = if seen.once.is_some() { every.min(SECOND_LOOK) } else { every };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn tell(&self, seen: &mut Seen, new: Sighting) {
        let s = &self.settings;
        tracing::info!(service = %s.service, detector = s.name, shows = %new, "a detector sees");
        let input = Input::Sighted { service: s.service.clone(), by: s.name.clone(), seen: new.clone() };
        match self.inbox.tell(input) {
            Ok(()) => seen.told = Some(new),
            // It is seen again at the next look.
            Err(_) => seen.once = Some(new),
        }
    }
}

async fn one_look(s: &DetectorSettings, source: &Arc<RwLock<Sources>>) -> Result<Option<Sighting>, String> {
    let seen = match &s.look {
        Look::File { path } => {
            let text = file::content(path).await?;
            s.sighting(&file::named_in(&text, &s.words)?)
        }
        Look::Symlink { path } => {
            let target = file::target(path).await?;
            s.sighting(&s.meant(&target))
        }
        Look::Haproxy { address, backend } => {
            let weights = haproxy::weights(address, backend).await?;
            s.weighed(weights.into_iter().map(|(server, weight)| (s.meant(&server), weight)).collect())
        }
        Look::Exec { exec, timeout } => {
            let done = command::run(exec, *timeout).await?;
            if !done.status.success() {
                return Err(format!("{exec} ended with {}", done.status));
            }
            let weights = output::weights(&done.stdout)?;
            let weights: Vec<_> = weights.into_iter().map(|(word, w)| (s.meant(&word), w)).collect();
            match weights.as_slice() {
                [(only, _)] => s.sighting(only),
                _ => s.weighed(weights),
            }
        }
        Look::Promql { query, label } => {
            let source = source.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let found = source.by_label(query, label).await.map_err(|failure| failure.to_string())?;
            let found = found.into_iter().map(|(word, value)| (s.meant(&word), value)).collect();
            match shares::most(found)? {
                Some(most) => s.sighting(&most),
                None => return Ok(None),
            }
        }
    };
    seen.map(Some)
}

impl DetectorSettings {
    /// The slot that a word stands for, or the word itself.
    fn meant(&self, word: &str) -> String {
        let known = self.words.iter().find(|(_, words)| words.iter().any(|w| w == word));
        known.map_or_else(|| word.to_owned(), |(slot, _)| slot.to_string())
    }

    fn slot(&self, word: &str) -> Result<Slot, String> {
        let slot = Slot::try_new(word).map_err(|why| why.to_string())?;
        let known = &self.words;
        if !known.is_empty() && !known.contains_key(&slot) {
            let names: Vec<&str> = known.keys().map(Slot::as_str).collect();
            return Err(format!("{slot} is no slot of {}: {}", self.service, names.join(", ")));
        }
        Ok(slot)
    }

    fn sighting(&self, word: &str) -> Result<Sighting, String> {
        match self.shows {
            Shows::Slot => Ok(Sighting { shares: [(self.slot(word)?, Percent::ALL)].into(), version: None }),
            Shows::Version => {
                let version = Version::try_new(word).map_err(|why| why.to_string())?;
                Ok(Sighting { shares: Default::default(), version: Some(version) })
            }
        }
    }

    /// Weights as parts of the traffic; what is not a slot of the service (a maintenance page) is another's.
    fn weighed(&self, weights: Vec<(String, f64)>) -> Result<Sighting, String> {
        let mut shares = std::collections::BTreeMap::new();
        for (slot, part) in shares::parts(weights)? {
            if let Ok(percent) = Percent::try_new(part * 100.0) {
                shares.insert(self.slot(&slot)?, percent);
            }
        }
        Ok(Sighting { shares, version: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_once_is_not_told_yet() {
        let of = |name: &str| Sighting { shares: [(Slot::try_new(name).unwrap(), Percent::ALL)].into(), version: None };
        let mut seen = Seen::default();
        assert_eq!(seen.take(of("blue")), None);
        assert_eq!(seen.take(of("blue")), Some(of("blue")));
        seen.told = Some(of("blue"));
        assert_eq!(seen.take(of("blue")), None);
        // A flicker is nothing.
        assert_eq!(seen.take(of("green")), None);
        assert_eq!(seen.take(of("blue")), None);
        assert_eq!(seen.take(of("green")), None);
        assert_eq!(seen.take(of("green")), Some(of("green")));
    }
}
