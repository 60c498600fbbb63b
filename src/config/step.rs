//! The way back and its like: steps in their order, each with its probe.

use std::collections::BTreeMap;

use super::action::{self, Kind};
use super::service::{SECOND, named};
use super::slots::argv;
use super::table::{At, Table, slip_or_all};
use crate::domain::action::{Action, Exec, Look, VARIABLES};
use crate::domain::plan::{Expect, OnFailure, Plan, Probe, Step, When};
use crate::domain::service::Slots;
use crate::domain::switch::{FlagName, Slot};
use crate::domain::time::Span;

/// Flags that move users are few at a time; more is a list that nobody keeps.
const FLAGS_MAX: usize = 64;

/// More steps than this is a deploy tool, not a way back.
const STEPS_MAX: usize = 16;

/// What a command needs besides PATH is little: where its own configuration is.
const ENV_MAX: usize = 32;

/// What a list of steps is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Rollback,
    Flag,
    AfterPassed,
}

/// `[[service.flags.NAME]]`: the kill switch of each flag.
pub(super) fn flags(at: &At<'_, '_>) -> Option<BTreeMap<FlagName, Plan>> {
    let mut flags = BTreeMap::new();
    for (name, span, place) in at.table()?.entries() {
        match FlagName::try_new(name) {
            Ok(flag) => {
                flags.insert(flag, plan(&place, None, Purpose::Flag)?);
            }
            Err(why) => place.source.problem(span, &place.path, why.to_string(), None),
        }
    }
    if flags.len() > FLAGS_MAX {
        at.problem(format!("has more than {FLAGS_MAX} flags"), None);
    }
    Some(flags)
}

pub(super) fn plan(at: &At<'_, '_>, slots: Option<&Slots>, purpose: Purpose) -> Option<Plan> {
    let list = at.list()?;
    if list.len() > STEPS_MAX {
        at.problem(format!("has more than {STEPS_MAX} steps"), None);
        return None;
    }
    let steps: Vec<Option<Step>> = list.iter().map(|at| at.table().and_then(|t| step(t, slots, purpose))).collect();
    let steps: Vec<Step> = steps.into_iter().collect::<Option<_>>()?;
    for (step, place) in steps.iter().zip(&list).enumerate().filter_map(|(i, (step, place))| {
        steps[..i].iter().any(|before| before.name == step.name).then_some((step, place))
    }) {
        place.problem(format!("the step {:?} is there twice", step.name), Some("records and drills go by its name"));
    }
    Some(Plan { steps })
}

fn step(table: Table<'_, '_>, slots: Option<&Slots>, purpose: Purpose) -> Option<Step> {
    let name = table.need("name", "name = \"haproxy\"").and_then(|at| {
        let text = at.string()?;
        let plain = !text.is_empty() && text.len() <= 64 && !text.chars().any(char::is_control);
        if !plain {
            at.problem("is no name: 1 to 64 characters on one line", None);
        }
        plain.then(|| text.to_owned())
    });
    let words = table.get("words").map_or(Some(BTreeMap::new()), |at| by_slot(&at, slots, false));
    let env = table.get("env").map_or(Some(BTreeMap::new()), |at| env(&at));
    let action = action::read(&table, slots, words.as_ref());
    let timeout = table
        .get("timeout")
        .and_then(|at| at.duration(SECOND..=Span::from_mins(10), "traffic on a bad release cannot wait longer"))
        .unwrap_or(Span::from_secs(30));
    let verify_timeout = table
        .get("verify_timeout")
        .and_then(|at| at.duration(SECOND..=Span::from_mins(30), "DNS and slow proxies included"))
        .unwrap_or(Span::from_secs(10));
    let probe_at = table.get("probe");
    let probe = probe_at.as_ref().map(|at| at.table().and_then(|t| probe(t, slots, words.as_ref())));
    let limit =
        |key: &'static str, most: Span, why: &str| table.get(key).and_then(|at| at.duration(SECOND..=most, why));
    let wait = limit("wait", Span::from_mins(60), "a drain that takes longer is no rollback any more");
    let heals_at = table.get("heals_within");
    let heals_within = limit("heals_within", Span::from_mins(30), "users meet the bad release until the next rung");
    let most = limit("limit", Span::from_mins(60), "what takes longer does not bring users back");
    let when = table.get("when").and_then(|at| at.word(&WHEN)).unwrap_or_default();
    // A remedy that cannot be applied must not keep the traffic on a bad release.
    let default = if heals_at.is_some() { OnFailure::Next } else { OnFailure::Stop };
    let on_failure = table.get("on_failure").and_then(|at| at.word(&ON_FAILURE)).unwrap_or(default);
    let retry_at = table.get("retry_safe");
    let lock = table.get("lock").and_then(|at| at.string().map(str::to_owned));
    let Some((mut action, own_probe)) = action else {
        // A slip in the action's own name is an unknown key.
        table.tell_unknown();
        return None;
    };
    let env = env?;
    let probe = match probe {
        Some(given) => Some(given?),
        None => own_probe,
    };
    let probe = probe.map(|probe| match probe.look {
        Look::Exec(exec) if exec.env.is_empty() => {
            Probe { look: Look::Exec(Exec { env: env.clone(), ..exec }), ..probe }
        }
        look => Probe { look, ..probe },
    });
    if let Action::Exec(exec) | Action::Unit(exec) = &mut action {
        exec.env = env;
    }
    let retry_safe = retry_at.and_then(|at| {
        let safe = at.boolean()?;
        if safe && probe.is_none() {
            at.problem(
                "cannot be true without a probe",
                Some("without a probe nobody can say whether the step was applied"),
            );
        }
        Some(safe)
    });
    if let Some(at) = &heals_at {
        if purpose != Purpose::Rollback {
            at.problem(
                "is for the steps of [[service.rollback]]",
                Some("a flag's own plan and after_passed heal nothing"),
            );
        } else if probe.as_ref().is_some_and(|probe| !matches!(probe.expect, Expect::Fixed(_))) {
            probe_at.as_ref().unwrap_or(at).problem(
                "shows a slot, and a remedy leaves the traffic where it is",
                Some("say what the probe prints when the remedy is in force: expect = \"off\""),
            );
        }
    }
    table.finish();
    let name = name?;
    words.as_ref()?;
    let lock = lock.unwrap_or_else(|| action.lock());
    Some(Step {
        retry_safe: retry_safe.unwrap_or(probe.is_some()),
        name,
        action,
        timeout,
        probe,
        verify_timeout,
        lock,
        words: words.unwrap_or_default(),
        wait: wait.unwrap_or(Span::ZERO),
        heals_within,
        when,
        on_failure,
        limit: most,
    })
}

const WHEN: [(&str, When); 2] = [("always", When::Always), ("after_failure", When::AfterFailure)];
const ON_FAILURE: [(&str, OnFailure); 2] = [("stop", OnFailure::Stop), ("next", OnFailure::Next)];

fn probe(table: Table<'_, '_>, slots: Option<&Slots>, words: Option<&BTreeMap<Slot, String>>) -> Option<Probe> {
    let look = action::look(&table, slots);
    let timeout = table
        .get("timeout")
        .and_then(|at| at.duration(Span::from_millis(100)..=Span::from_secs(60), "a probe is a quick look"))
        .unwrap_or(Span::from_secs(5));
    let env = table.get("env").map_or(Some(BTreeMap::new()), |at| env(&at));
    let default = match (words, &look) {
        // These show the slot itself.
        (_, Some(Look::Haproxy(_) | Look::File(_))) | (None, _) => Expect::SlotName,
        (Some(words), _) if words.is_empty() => Expect::SlotName,
        (Some(words), _) => Expect::Words(words.clone()),
    };
    let expect = table.get("expect").map_or(Some(default.clone()), |at| match at.value.as_str() {
        Some("$old") => Some(default),
        Some(word) => fixed(&at, word, slots),
        None => by_slot(&at, slots, true).map(Expect::Words),
    });
    table.finish();
    let look = match (look?, env?) {
        (Look::Exec(exec), env) => Look::Exec(Exec { env, ..exec }),
        (look, _) => look,
    };
    Some(Probe { look, expect: expect?, timeout })
}

/// One word whatever the slots are: right for a flag, and a slip where it is a slot's name.
fn fixed(at: &At<'_, '_>, word: &str, slots: Option<&Slots>) -> Option<Expect> {
    let shown: String = word.chars().take(40).collect();
    let is_slot =
        Slot::try_new(word).is_ok_and(|slot| matches!(slots, Some(Slots::Named(known)) if known.contains_key(&slot)));
    if word.trim().is_empty() || word.starts_with('$') || word == "old" || is_slot {
        at.problem(
            format!("{shown:?} would be expected for every slot"),
            Some("\"$old\" (the probe prints the slot's name), or a table with a word for each slot"),
        );
        return None;
    }
    Some(Expect::Fixed(word.trim().to_owned()))
}

/// A word for each slot.
pub(super) fn by_slot(at: &At<'_, '_>, slots: Option<&Slots>, trim: bool) -> Option<BTreeMap<Slot, String>> {
    let word = |(slot, place): (Slot, At<'_, '_>)| {
        let word = place.string()?;
        Some((slot, if trim { word.trim().to_owned() } else { word.to_owned() }))
    };
    Some(slots_of(at, slots)?.into_iter().filter_map(word).collect())
}

/// The keys of a table that are slots of the service, with what stands there.
pub(super) fn slots_of<'s, 't>(at: &At<'s, 't>, slots: Option<&Slots>) -> Option<Vec<(Slot, At<'s, 't>)>> {
    let mut found = Vec::new();
    for (name, span, place) in at.table()?.entries() {
        match Slot::try_new(name) {
            Ok(slot) => {
                if let Some(Slots::Named(known)) = slots
                    && !known.contains_key(&slot)
                {
                    let list: Vec<_> = known.keys().map(Slot::as_str).collect();
                    let help = Some(format!("its slots are {}", list.join(", ")));
                    place.source.problem(span, &place.path, "is not a slot of this service", help);
                }
                found.push((slot, place));
            }
            Err(why) => place.source.problem(span, &place.path, why.to_string(), None),
        }
    }
    Some(found)
}

/// Every slot must have its part, or a rollback to it finds nothing to do.
pub(super) fn for_every_slot<T>(at: &At<'_, '_>, slots: Option<&Slots>, given: &BTreeMap<Slot, T>) -> bool {
    match slots {
        Some(Slots::Named(known)) => {
            let missing: Vec<&str> = known.keys().filter(|slot| !given.contains_key(*slot)).map(Slot::as_str).collect();
            if !missing.is_empty() {
                at.problem(format!("says nothing for {}", missing.join(", ")), Some("every slot may be gone back to"));
            }
            missing.is_empty()
        }
        Some(Slots::Versions) => {
            at.problem("needs slots with names", Some("with slots = \"versions\" use exec or http, with $old"));
            false
        }
        None => true,
    }
}

pub(super) fn env(at: &At<'_, '_>) -> Option<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for (name, span, place) in at.table()?.entries() {
        let plain = !name.is_empty()
            && name
                .chars()
                .enumerate()
                .all(|(i, c)| c == '_' || c.is_ascii_uppercase() || (i > 0 && c.is_ascii_digit()));
        let secret = ["SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY"].iter().any(|word| name.contains(word));
        let wrong = if !plain {
            Some(("is no variable's name", "capital letters, digits and _"))
        } else if name == "PATH" || name.starts_with("FLIPBACK_") {
            Some(("is set by flipback itself", "name programs by their whole path"))
        } else if secret && !name.ends_with("_FILE") {
            Some((
                "is a secret in the configuration",
                "name a file instead: AWS_SHARED_CREDENTIALS_FILE, ..._TOKEN_FILE",
            ))
        } else {
            None
        };
        if let Some((what, help)) = wrong {
            place.source.problem(span, &place.path, what, Some(help.to_owned()));
        } else if let Some(value) = place.string() {
            env.insert(name, value.to_owned());
        }
    }
    if env.len() > ENV_MAX {
        at.problem(format!("has more than {ENV_MAX} variables"), None);
    }
    Some(env)
}

/// A command of a step, with its variables.
pub(super) fn command(at: &At<'_, '_>) -> Option<Exec> {
    argv(at, &VARIABLES)
}

/// Exactly one of several keys.
pub(super) fn one_of<'s, 't>(
    table: &Table<'s, 't>,
    kinds: &[(&'static str, Kind)],
    help: &str,
) -> Option<(Kind, At<'s, 't>)> {
    let found: Vec<_> = kinds.iter().filter_map(|(key, kind)| Some((*kind, table.get(key)?))).collect();
    let names: Vec<&str> = kinds.iter().map(|(key, _)| *key).collect();
    match <[_; 1]>::try_from(found) {
        Ok([one]) => Some(one),
        Err(_) => {
            table.problem(&table.path, format!("needs exactly one of {}", names.join(", ")), Some(help.to_owned()));
            None
        }
    }
}

/// Variables of a text that flipback fills itself.
pub(super) fn known_variables(at: &At<'_, '_>, text: &str, known: &[&str]) {
    match crate::domain::action::variables_of(text) {
        Err(why) => at.problem(why, None),
        Ok(names) => {
            let shown: Vec<String> = known.iter().map(|name| format!("${name}")).collect();
            for name in names.into_iter().filter(|name| !known.contains(name)) {
                let name = format!("${name}");
                let help = slip_or_all(&name, "variables", shown.iter().map(String::as_str));
                at.problem(format!("{name} is not a variable"), Some(&help));
            }
        }
    }
}

/// The name of something in another system's own language: no blank, nothing that could end a command there.
pub(super) fn plain_name(at: &At<'_, '_>) -> Option<String> {
    named(at, |text: String| {
        let good = !text.is_empty()
            && text.len() <= 128
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
        if good { Ok(text) } else { Err("must be letters, digits and - _ . : only") }
    })
}
