//! Secrets come from files, read when they are needed.

use std::path::Path;

/// What the file holds; `env:NAME` stands for a variable of the daemon's own environment.
pub fn text(path: &Path) -> Result<String, String> {
    match path.to_str().and_then(|path| path.strip_prefix("env:")) {
        Some(name) => std::env::var(name).map_err(|error| format!("the variable {name}: {error}")),
        None => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display())),
    }
}

/// The first line, trimmed: what an editor or `openssl rand` leaves.
pub fn first_line(path: &Path) -> Result<String, String> {
    let text = text(path)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Whether what is sent there stays on this machine: a name or address as it stands in a URL.
pub fn is_this_host(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
