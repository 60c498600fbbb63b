//! A short command with a time limit and little output: probes and health checks.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::domain::action::Exec;
use crate::domain::time::Span;
use crate::shim::kill_group;

/// A probe prints one line; what goes on beyond this is no probe's output.
const OUTPUT_MAX: u64 = 4096;

pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
}

/// Runs it to its end, or says in one line why not. No shell; nothing of our environment but PATH.
pub async fn run(exec: &Exec, timeout: Span) -> Result<Finished, String> {
    run_with(exec, None, timeout).await
}

/// The same with something to read on its standard input.
pub async fn run_with(exec: &Exec, input: Option<&str>, timeout: Span) -> Result<Finished, String> {
    let (program, arguments) = exec.argv.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", super::exec::CHILD_PATH)
        .envs(&exec.env)
        .current_dir("/")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let group = child.id();
    let pipe = child.stdout.take();
    let stdin = child.stdin.take();
    let work = async {
        if let (Some(mut stdin), Some(text)) = (stdin, input) {
            // Whoever does not read to the end has read enough.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let mut limited = pipe.take(OUTPUT_MAX);
            limited.read_to_end(&mut bytes).await.map_err(|error| format!("{program}: {error}"))?;
        }
        let status = child.wait().await.map_err(|error| format!("{program}: {error}"))?;
        Ok(Finished { status, stdout: String::from_utf8_lossy(&bytes).into_owned() })
    };
    match tokio::time::timeout(timeout.to_std(), work).await {
        Ok(finished) => finished,
        Err(_) => {
            if let Some(group) = group {
                kill_group(group, rustix::process::Signal::KILL);
            }
            Err(format!("{program} did not end within {timeout}"))
        }
    }
}
