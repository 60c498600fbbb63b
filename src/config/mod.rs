//! TOML → [`Settings`], validated; every problem at once, with its place and its mend.

mod action;
mod api;
mod brakes;
mod detect;
mod heartbeat;
mod judging;
mod metrics;
mod notify;
mod origin;
mod problem;
mod prometheus;
mod read;
pub mod reference;
pub mod service;
pub mod settings;
mod slots;
mod step;
mod table;
mod webhook;

use std::path::{Path, PathBuf};

use crate::domain::policy::Policy;
use crate::domain::service::Service;

pub use problem::{Problem, Problems};
pub use read::{SOCKET, STATE_DIR, parse, parse_policy};
pub use settings::Settings;

/// A configuration of a thousand services is some 500 KiB.
const FILE_MAX: u64 = 1024 * 1024;

/// What the command line or the environment set over the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    pub state_dir: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub log_level: Option<String>,
}

impl Overrides {
    fn apply(&self, settings: &mut Settings) {
        if let Some(dir) = &self.state_dir {
            settings.state_dir.clone_from(dir);
        }
        if let Some(socket) = &self.socket {
            settings.api.socket.clone_from(socket);
        }
        if let Some(level) = &self.log_level {
            settings.log.level.clone_from(level);
        }
    }
}

/// Reads the main file and the `conf.d/*.toml` beside it, in the order of their names.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Settings, Problems> {
    let mut text = read_file(path)?;
    let mut extra = Vec::new();
    if let Some(dir) = path.parent().map(|p| p.join("conf.d"))
        && let Ok(entries) = std::fs::read_dir(&dir)
    {
        let mut files: Vec<PathBuf> =
            entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
        files.sort();
        extra = files;
    }
    // Added files are read as one text behind the main one: a key that is set twice is TOML's own error.
    // Only whole tables may stand in them, so that nothing lands in the table before it.
    for file in &extra {
        let more = read_file(file)?;
        let first = more.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'));
        if first.is_some_and(|l| !l.starts_with('[')) {
            let help =
                Some("begin it with [[service]] or [metrics.NAME]; top-level keys belong into the main file".into());
            return Err(Problems(vec![Problem::whole(
                &file.display().to_string(),
                "must begin with a table".into(),
                help,
            )]));
        }
        text.push('\n');
        text.push_str(&more);
    }
    let name = match extra.len() {
        0 => path.display().to_string(),
        n => format!("{} + {n} files of conf.d", path.display()),
    };
    let mut settings = parse(&name, &text)?;
    overrides.apply(&mut settings);
    Ok(settings)
}

/// A file with the keys of a `[[service]]` that say how it is judged, laid over the policy of `service`.
pub fn load_policy(path: &Path, service: &Service) -> Result<Policy, Problems> {
    let text = read_file(path)?;
    parse_policy(&path.display().to_string(), &text, service)
}

fn read_file(path: &Path) -> Result<String, Problems> {
    let name = path.display().to_string();
    let whole = |message: String, help: Option<&str>| {
        Err(Problems(vec![Problem::whole(&name, message, help.map(str::to_owned))]))
    };
    match std::fs::metadata(path) {
        Err(error) => return whole(format!("cannot be read: {error}"), None),
        Ok(meta) if meta.len() > FILE_MAX => {
            return whole(format!("is larger than {} KiB", FILE_MAX / 1024), Some("is this the right file?"));
        }
        Ok(meta) if meta.is_dir() => return whole("is a directory".into(), None),
        Ok(_) => {}
    }
    match std::fs::read(path) {
        Err(error) => whole(format!("cannot be read: {error}"), None),
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                whole(format!("is not UTF-8 (byte {at})"), Some("save it as UTF-8"))
            }
        },
    }
}
