//! nginx: rewrite, test, reload, look at what is served; and put the old file back where the new one is not served.
//!
//! Exit code 0 of a reload says little: with a port taken, or a worker that cannot start, nginx goes on with what it
//! had. So the file on disk and what is served are made to agree before this ends, one way or the other.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::file::{self, Held, put, read, wanted};
use super::http;
use crate::domain::action::{Exec, Nginx};
use crate::domain::switch::Slot;
use crate::domain::time::Span;
use crate::edge::actuators::exec::CHILD_PATH;

const EVERY: Duration = Duration::from_millis(200);

/// One answer may be of a worker that is on its way out.
const GOODS: u32 = 3;

pub async fn act(n: &Nginx, to: &Slot, left: Duration) -> Result<(), String> {
    let path = &n.file.path;
    let new = wanted(&n.file, to)?;
    let old = remember(n, &new)?;
    if read(path)? != new {
        put(path, &new)?;
        println!("{} is for {to} now", path.display());
    }
    let gone = |why: String| async move { Err::<(), String>(put_back(n, &old, why).await) };
    if let Some(test) = &n.test
        && let Err(why) = run("the test", test, left).await
    {
        return gone(why).await;
    }
    if let Err(why) = run("the reload", &n.reload, left).await {
        return gone(why).await;
    }
    match served(n, to, left).await {
        Ok(()) => {
            forget(n);
            Ok(())
        }
        Err(why) => gone(format!("the reload ended well, but {why}")).await,
    }
}

/// What is to be put back. A killed attempt left it beside the file: that is older than what the file holds.
fn remember(n: &Nginx, new: &Held) -> Result<Held, String> {
    let path = &n.file.path;
    let kept = file::beside(path, "old").map_err(|error| format!("{}: {error}", path.display()))?;
    let now = read(path)?;
    if now == *new {
        return Ok(match read(&kept)? {
            Held::Nothing => now,
            older => older,
        });
    }
    put(&kept, &now)?;
    Ok(now)
}

fn forget(n: &Nginx) {
    if let Ok(kept) = file::beside(&n.file.path, "old") {
        let _ = fs::remove_file(kept);
    }
}

/// The whole story in one line. The reload after it makes nginx and the file agree, whichever the first one did.
async fn put_back(n: &Nginx, old: &Held, why: String) -> String {
    let path = n.file.path.display();
    if let Err(error) = put(&n.file.path, old) {
        return format!("{why}; and the old file could not be put back: {error}");
    }
    forget(n);
    match run("the second reload", &n.reload, Duration::from_secs(2)).await {
        Ok(()) => format!("{why}; the old {path} is back, and reloaded"),
        Err(second) => format!("{why}; the old {path} is back ({second})"),
    }
}

async fn run(what: &str, exec: &Exec, limit: Duration) -> Result<(), String> {
    let (program, arguments) = exec.argv.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", CHILD_PATH)
        .envs(&exec.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{what} ({program}): {error}"))?;
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => {
            println!("{what} ({exec}): good");
            Ok(())
        }
        Ok(Ok(status)) => Err(format!("{what} ({exec}) ended with {status}")),
        Ok(Err(error)) => Err(format!("{what} ({exec}): {error}")),
        Err(_) => Err(format!("{what} ({exec}) did not end in time")),
    }
}

async fn served(n: &Nginx, to: &Slot, left: Duration) -> Result<(), String> {
    let word = n.words.get(to).map_or(to.as_str(), String::as_str);
    let until = Instant::now() + n.live_within.to_std().min(left);
    let mut goods = 0;
    let mut last;
    loop {
        last = http::look(&n.served, Span::from_secs(2)).await;
        goods = if last.as_deref() == Ok(word) { goods + 1 } else { 0 };
        if goods >= GOODS {
            println!("{} shows {word}", n.served.target.url);
            return Ok(());
        }
        if Instant::now() >= until {
            break;
        }
        tokio::time::sleep(EVERY).await;
    }
    Err(match last {
        Ok(other) => format!("{} still shows {other:?}, not {word:?}", n.served.target.url),
        Err(why) => format!("what is served cannot be read: {why}"),
    })
}

/// What a rollback would need, without moving anything: the file can be replaced, and what is there passes the test.
pub async fn try_out(n: &Nginx) -> Result<String, String> {
    file::can_replace(&n.file.path)?;
    if let Some(test) = &n.test {
        run("the test", test, Duration::from_secs(10)).await?;
    }
    let program = n.reload.argv.first().cloned().unwrap_or_default();
    crate::edge::actuators::rehearse::runnable(&program)?;
    Ok("the file can be replaced, and the present configuration passes its test".into())
}
