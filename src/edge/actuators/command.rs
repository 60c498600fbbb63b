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
    /// Its beginning, where it was wanted.
    pub stderr: String,
}

/// What a command says of its failure.
const COMPLAINT_MAX: u64 = 500;

struct Wish<'a> {
    input: Option<&'a str>,
    output_max: u64,
    complaint: bool,
}

/// Runs it to its end, or says in one line why not. No shell; nothing of our environment but PATH.
pub async fn run(exec: &Exec, timeout: Span) -> Result<Finished, String> {
    run_with(exec, None, timeout).await
}

/// The same with something to read on its standard input.
pub async fn run_with(exec: &Exec, input: Option<&str>, timeout: Span) -> Result<Finished, String> {
    run_as(exec, timeout, Wish { input, output_max: OUTPUT_MAX, complaint: false }).await
}

/// The same for a command whose output is data; more than `max` bytes are refused.
pub async fn run_for_data(exec: &Exec, timeout: Span, max: usize) -> Result<Finished, String> {
    let output_max = u64::try_from(max).unwrap_or(u64::MAX);
    let done = run_as(exec, timeout, Wish { input: None, output_max: output_max + 1, complaint: true }).await?;
    if done.stdout.len() > max {
        return Err(format!("the output is larger than {} MiB", max / 1024 / 1024));
    }
    Ok(done)
}

async fn run_as(exec: &Exec, timeout: Span, wish: Wish<'_>) -> Result<Finished, String> {
    let input = wish.input;
    let (program, arguments) = exec.argv.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", super::exec::CHILD_PATH)
        .envs(&exec.env)
        .current_dir("/")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(if wish.complaint { Stdio::piped() } else { Stdio::null() })
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let group = child.id();
    let pipe = child.stdout.take();
    let stdin = child.stdin.take();
    let complaints = child.stderr.take();
    let work = async {
        if let (Some(mut stdin), Some(text)) = (stdin, input) {
            // Whoever does not read to the end has read enough.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let (bytes, said) = tokio::join!(read(pipe, wish.output_max), read(complaints, COMPLAINT_MAX));
        let bytes = bytes.map_err(|error| format!("{program}: {error}"))?;
        let stderr = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        let status = child.wait().await.map_err(|error| format!("{program}: {error}"))?;
        Ok(Finished { status, stdout: String::from_utf8_lossy(&bytes).into_owned(), stderr })
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

async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>, max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(max).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
