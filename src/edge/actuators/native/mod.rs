//! Actions that flipback carries out itself. They run in a process of their own below the shim (`flipback act`),
//! so that they outlive the daemon, are killed at their time limit and leave their words like any command.

pub mod file;
pub mod haproxy;
pub mod http;
pub mod nginx;
pub mod unit;

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::domain::action::Action;
use crate::shim::{SPEC, Spec};

/// Kept back from the step's time limit, for what must be put right when the action itself did not get through.
const RESERVE: Duration = Duration::from_secs(3);

/// Carries out the action of an attempt's directory; its words are on standard output.
pub fn act(dir: &Path) -> i32 {
    match carry_out(dir) {
        Ok(()) => 0,
        Err(why) => {
            println!("failed: {why}");
            1
        }
    }
}

fn carry_out(dir: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(dir.join(SPEC)).map_err(|e| format!("{SPEC}: {e}"))?;
    let spec: Spec = serde_json::from_str(&text).map_err(|e| format!("{SPEC}: {e}"))?;
    let native = spec.native.ok_or("this attempt is a command, not an action of flipback's own")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let left = left_until(spec.deadline.as_millis()).saturating_sub(RESERVE).max(Duration::from_secs(1));
    let key = spec.env.get("FLIPBACK_ATTEMPT_ID").cloned().unwrap_or_default();
    runtime.block_on(async {
        match &native.action {
            Action::Haproxy(haproxy) => haproxy::act(haproxy, &native.to, left).await,
            Action::File(set) => file::act(set, &native.to),
            Action::Nginx(nginx) => nginx::act(nginx, &native.to, left).await,
            Action::Http(call) => http::act(call, &key, left).await,
            Action::Exec(_) | Action::Unit(_) => Err("a command is run by the shim itself".into()),
        }
    })
}

/// A process of its own: the daemon's clock is not here, and the limit was told by the wall's.
#[allow(clippy::disallowed_methods, reason = "no runtime here whose clock could be asked")]
fn left_until(wall_ms: i64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let until = Duration::from_millis(u64::try_from(wall_ms).unwrap_or(0));
    until.saturating_sub(now)
}
