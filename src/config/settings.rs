//! The validated configuration: what the rest of the program sees of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::domain::brakes::Brakes;
use crate::domain::plan::Exec;
use crate::domain::service::Service;
use crate::domain::time::Span;

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub state_dir: PathBuf,
    pub prometheus: PrometheusSettings,
    pub email: Option<EmailSettings>,
    pub api: ApiSettings,
    pub log: LogSettings,
    pub brakes: Brakes,
    /// What is run when a page does not get out by mail.
    pub fallback: Option<FallbackSettings>,
    pub services: Vec<Service>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PrometheusSettings {
    /// Base URL without a trailing `/`.
    pub url: String,
    /// Where people open Prometheus, for links; `url` where it is not set.
    pub external_url: Option<String>,
    /// Limit of one HTTP exchange.
    pub timeout: Span,
    /// Overrides the settling time that is read from Prometheus (remote write needs it).
    pub settle: Option<Span>,
    pub auth: Option<PrometheusAuth>,
    /// How far back the first backfill of the baseline goes.
    pub backfill: Span,
}

/// Credentials, by file: read when the client is built, never logged.
#[derive(Debug, Clone, PartialEq)]
pub enum PrometheusAuth {
    Basic { username: String, password_file: PathBuf },
    Bearer { token_file: PathBuf },
}

#[derive(Debug, Clone, PartialEq)]
pub struct EmailSettings {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    pub from: String,
    pub to: Vec<String>,
    pub login: Option<MailLogin>,
    /// Limit of one delivery, from connecting to the server's last word.
    pub timeout: Span,
}

/// A command that gets the notice on its standard input.
#[derive(Debug, Clone, PartialEq)]
pub struct FallbackSettings {
    pub exec: Exec,
    /// A page that has not been delivered for so long goes this way as well.
    pub after: Span,
    pub timeout: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MailLogin {
    pub username: String,
    pub password_file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// Plain text: only to loopback unless the configuration insists.
    None,
    StartTls,
    Implicit,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ApiSettings {
    /// `None`: no TCP listener, only the control socket.
    pub listen: Option<SocketAddr>,
    /// SHA-256 comparison against the first line of this file; required with `listen`.
    pub token_file: Option<PathBuf>,
    pub socket: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A tracing filter: `info`, `flipback=debug`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// journald where the process runs under it, else logfmt.
    Auto,
    Logfmt,
    Json,
}
