//! Asking the daemon, over the control socket or HTTP.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Global, exit};
use crate::domain::view::WatchView;
use crate::edge::api::types::Envelope;
use crate::edge::authorities::of_this_machine;
use crate::edge::secret::first_line;

/// Longer than any route takes.
const TIMEOUT: Duration = Duration::from_secs(70);

/// Why there is no answer: the exit code and what to say.
#[derive(Debug)]
pub struct Trouble {
    pub code: i32,
    pub text: String,
    /// The daemon could not be reached at all.
    pub unreachable: bool,
}

impl Trouble {
    /// Says it on stderr and gives the exit code.
    pub fn tell(&self) -> i32 {
        eprintln!("flipback: {}", self.text);
        self.code
    }
}

pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    runtime: tokio::runtime::Runtime,
    place: String,
}

impl Client {
    pub fn new(global: &Global) -> Result<Client, Trouble> {
        let usage = |text: String| Trouble { code: exit::USAGE, text, unreachable: false };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| usage(format!("the runtime does not start: {error}")))?;
        let builder = of_this_machine(reqwest::Client::builder())
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let (builder, base, token, place) = match (&global.url, &global.token_file) {
            (Some(url), Some(file)) => {
                let token = first_line(file).map_err(usage)?;
                (builder, url.trim_end_matches('/').to_owned(), Some(token), url.clone())
            }
            _ => {
                let place = global.socket.display().to_string();
                (builder.unix_socket(global.socket.clone()), "http://flipback".to_owned(), None, place)
            }
        };
        let http = builder.build().map_err(|error| usage(error.to_string()))?;
        if global.url.is_none() {
            may_connect(&global.socket)?;
        }
        Ok(Client { http, base, token, runtime, place })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.exchange(self.http.get(format!("{}{path}", self.base)))
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Trouble> {
        self.exchange(self.http.post(format!("{}{path}", self.base)).json(body))
    }

    fn exchange<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, Trouble> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let unreachable = |error: &reqwest::Error| {
            let mut cause: &dyn std::error::Error = error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            let text = format!("flipback cannot be reached at {}: {cause}", self.place);
            Trouble { code: exit::UNREACHABLE, text, unreachable: true }
        };
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|error| unreachable(&error))?;
            let status = answer.status();
            let body = answer.bytes().await.map_err(|error| unreachable(&error))?;
            let envelope: Envelope<T> = serde_json::from_slice(&body).map_err(|error| Trouble {
                code: exit::UNREACHABLE,
                text: format!("the answer of {} is not flipback's ({status}): {error}", self.place),
                unreachable: false,
            })?;
            match envelope.data {
                Some(data) if status.is_success() => Ok(data),
                _ => {
                    let text = envelope.error.unwrap_or_else(|| format!("it answered {status}"));
                    // Busy or stopping says nothing of the switch; everything else is a refusal.
                    let down = status == reqwest::StatusCode::SERVICE_UNAVAILABLE;
                    Err(Trouble { code: if down { exit::UNREACHABLE } else { exit::USAGE }, text, unreachable: down })
                }
            }
        })
    }
}

/// A socket that is there but closed to this user gets its own words.
fn may_connect(socket: &Path) -> Result<(), Trouble> {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = match error.kind() {
                std::io::ErrorKind::PermissionDenied => format!(
                    "no permission for {}: members of the group flipback may use it (adduser YOU flipback, then log in again)",
                    socket.display()
                ),
                _ => format!(
                    "flipback cannot be reached at {}: {error}; is it running? (systemctl status flipback)",
                    socket.display()
                ),
            };
            Err(Trouble { code: exit::UNREACHABLE, text, unreachable: true })
        }
    }
}

/// One watch as the daemon has it, by a client of its own: the socket may be another daemon's by now.
pub fn watch(global: &Global, id: &str) -> Result<WatchView, Trouble> {
    Client::new(global)?.get(&format!("/api/v1/watches/{}", crate::words::safe::path_part(id)))
}
