//! Who is told what and how, as the configuration has it; begun anew at a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::channel::{Channel, ChannelError};
use super::page::{Link, ShownQuery};
use super::route::{Route, labels};
use super::templates::Templates;
use crate::config::settings::{EmailSettings, FallbackSettings, LinkSettings, NotifySettings};
use crate::domain::letter::Letter;
use crate::domain::notice::Severity;
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::WatchView;
use crate::journal::RoutedTo;
use crate::words::safe::tame;

/// Finds the queries that show a watch's signals as they are at an instant.
pub type Queries = Arc<dyn Fn(&WatchView, Timestamp) -> Vec<ShownQuery> + Send + Sync>;

/// What goes beside the cut-over and the end of a trouble in a linked graph.
const AROUND: Span = Span::from_mins(15);

pub struct Receiver {
    pub name: String,
    /// Names of its channels.
    pub channels: Vec<String>,
    send_resolved: bool,
}

pub struct Desk {
    /// `None`: notices go to the log only.
    pub route: Option<Route>,
    /// As they are configured, in that order.
    pub receivers: Vec<Receiver>,
    pub channels: BTreeMap<String, Arc<Channel>>,
    pub fallback: Option<FallbackSettings>,
    pub templates: Templates,
    links: LinkSettings,
    pub host: String,
}

impl Desk {
    pub fn new(settings: &NotifySettings, email: Option<&EmailSettings>, host: &str) -> Result<Desk, ChannelError> {
        let templates = match &settings.templates {
            Some(dir) => Templates::with(dir).map_err(|why| ChannelError(format!("[notify] templates: {why}")))?,
            None => Templates::ours(),
        };
        let (mut channels, mut receivers) = (BTreeMap::new(), Vec::new());
        for receiver in &settings.receivers {
            let made = Channel::all(receiver, email, host)
                .map_err(|error| ChannelError(format!("receiver {}: {error}", receiver.name)))?;
            receivers.push(Receiver {
                name: receiver.name.clone(),
                channels: made.iter().map(|(name, _)| name.clone()).collect(),
                send_resolved: receiver.send_resolved,
            });
            channels.extend(made.into_iter().map(|(name, channel)| (name, Arc::new(channel))));
        }
        Ok(Desk {
            route: settings.route.clone(),
            receivers,
            channels,
            fallback: settings.fallback.clone(),
            templates,
            links: settings.links.clone(),
            host: host.to_owned(),
        })
    }

    /// Where a letter goes. What settles a trouble goes to everybody who was told of it as well.
    pub fn route(&self, letter: &Letter, told_before: &[String]) -> Vec<RoutedTo> {
        let Some(route) = &self.route else { return Vec::new() };
        let repeats = letter.severity() == Severity::Page;
        let mut found: BTreeMap<String, Option<Span>> = BTreeMap::new();
        for (receiver, repeat) in route.resolve(&labels(letter)) {
            for channel in self.receivers.iter().filter(|r| r.name == receiver).flat_map(|r| &r.channels) {
                found.insert(channel.clone(), repeat.filter(|_| repeats));
            }
        }
        for channel in self.receivers.iter().filter(|r| r.send_resolved).flat_map(|r| &r.channels) {
            if told_before.contains(channel) {
                found.entry(channel.clone()).or_insert(None);
            }
        }
        // A channel that did not take a notice is not told by that channel.
        if let Letter::Undeliverable(u) = letter {
            found.remove(&u.channel);
        }
        found.into_iter().map(|(channel, repeat)| RoutedTo { channel, repeat }).collect()
    }

    /// The template of the link to flipback's own page.
    pub fn status_page(&self) -> Option<&str> {
        self.links.status_page.as_deref()
    }

    /// Where to look further, by the operator's templates.
    pub fn links(&self, letter: &Letter) -> Vec<Link> {
        letter.notice().map_or_else(Vec::new, |notice| self.links_of(&notice.watch, notice.at))
    }

    /// The same of a watch, as it is at `at`.
    pub fn links_of(&self, w: &WatchView, at: Timestamp) -> Vec<Link> {
        let from = w.began() - AROUND;
        let values = [
            ("service", w.switch.service.to_string()),
            ("slot", w.switch.new.to_string()),
            ("old", w.switch.old.to_string()),
            ("new", w.switch.new.to_string()),
            ("version", w.switch.version.as_ref().map_or(String::new(), ToString::to_string)),
            ("switch", w.id.to_string()),
            ("from_ms", from.as_millis().to_string()),
            ("to_ms", (at + AROUND).as_millis().to_string()),
        ];
        let fill = |template: &str| {
            filled(template, |name| {
                values.iter().find(|(known, _)| *known == name).map_or(String::new(), |(_, v)| encoded(v))
            })
        };
        [("Grafana", &self.links.grafana), (STATUS_PAGE, &self.links.status_page)]
            .into_iter()
            .filter_map(|(name, template)| {
                Some(Link { name: name.to_owned(), url: tame(&fill(template.as_ref()?), 1000) })
            })
            .collect()
    }
}

/// The name of the link to flipback's own page.
pub const STATUS_PAGE: &str = "Status page";

/// Variables that a link's template may use.
pub const LINK_VARIABLES: [&str; 8] = ["service", "slot", "old", "new", "version", "switch", "from_ms", "to_ms"];

/// A link's template with each variable in its place.
pub fn filled(template: &str, value: impl Fn(&str) -> String) -> String {
    LINK_VARIABLES
        .iter()
        .fold(template.to_owned(), |text, name| text.replace(&format!("{{{{ {name} }}}}"), &value(name)))
}

/// Everything but plain letters as %XX: a name cannot leave its place in the address.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{ChannelSettings, ReceiverSettings};
    use crate::domain::action::Exec;
    use crate::edge::notify::route::Matcher;
    use crate::edge::notify::sample;

    fn desk(send_resolved: bool) -> Desk {
        let receiver = |name: &str, send_resolved| {
            let command = ChannelSettings::Command { exec: Exec::new(["/bin/true"]), timeout: Span::from_secs(1) };
            ReceiverSettings { name: name.into(), channels: vec![command], send_resolved }
        };
        let pages = Route {
            matchers: vec![Matcher::parse("severity=\"page\"").unwrap()],
            ..Route::to("pager", Some(Span::from_mins(60)))
        };
        let route = Route { routes: vec![pages], ..Route::to("team", Some(Span::from_mins(60))) };
        let settings = NotifySettings {
            receivers: vec![receiver("team", true), receiver("pager", send_resolved)],
            route: Some(route),
            links: LinkSettings {
                grafana: Some("https://g/?s={{ service }}&v={{ version }}&from={{ from_ms }}".into()),
                status_page: None,
            },
            ..NotifySettings::default()
        };
        Desk::new(&settings, None, "ops1").unwrap()
    }

    fn to(desk: &Desk, kind: &str, told: &[&str]) -> Vec<(String, bool)> {
        let told: Vec<String> = told.iter().map(|t| (*t).to_owned()).collect();
        let routed = desk.route(&sample::letter(kind).unwrap(), &told);
        routed.into_iter().map(|r| (r.channel, r.repeat.is_some())).collect()
    }

    #[test]
    fn what_settles_goes_to_whoever_was_woken() {
        let desk = desk(true);
        let (team, pager) = ("team/command".to_owned(), "pager/command".to_owned());
        assert_eq!(to(&desk, "rolled_back_recovered", &[]), [(team.clone(), false)], "no reminders of what is well");
        assert_eq!(to(&desk, "blind", &[]), [(pager.clone(), true)]);
        let both = [(pager.clone(), false), (team.clone(), false)];
        assert_eq!(to(&desk, "rolled_back_recovered", &["pager/command"]), both);
        assert_eq!(to(&desk, "rolled_back_recovered", &["gone/slack"]), [(team.clone(), false)]);
        let quiet = self::desk(false);
        assert_eq!(to(&quiet, "rolled_back_recovered", &["pager/command"]), [(team, false)]);
        let Some(Letter::Undeliverable(mut u)) = sample::letter("undeliverable") else { panic!() };
        u.channel = pager;
        assert!(desk.route(&Letter::Undeliverable(u), &[]).is_empty(), "not by the channel that failed");
    }

    #[test]
    fn a_value_cannot_leave_its_place_in_a_link() {
        let Some(Letter::Notice(mut notice)) = sample::letter("blind") else { panic!() };
        notice.watch.switch.version = crate::domain::switch::Version::try_new("v1/2:3").ok();
        let links = desk(true).links(&Letter::Notice(notice));
        assert_eq!(links.len(), 1);
        assert!(links[0].url.starts_with("https://g/?s=checkout&v=v1%2F2%3A3&from=17952"), "{}", links[0].url);
    }
}
