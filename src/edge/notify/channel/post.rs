//! A POST of JSON, and what its answer means. No redirects, no proxy; destinations come from the configuration alone.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, StatusCode, Url, header};

use super::{ChannelError, Delivery};
use crate::domain::time::Span;
use crate::edge::actuators::native::http::root as root_cause;
use crate::edge::authorities::of_this_machine;
use crate::edge::secret;

/// One exchange; the next message of this channel waits for it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What a server may ask for in Retry-After; a page cannot wait for a day.
const WAIT_MAX: Span = Span::from_mins(10);

/// Of an answer so much is looked at.
const ANSWER_MAX: usize = 4096;

pub fn client() -> Result<Client, ChannelError> {
    of_this_machine(Client::builder())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("flipback/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ChannelError(error.to_string()))
}

/// A URL that may carry what is sent there: TLS, or this host.
pub fn safe_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" => Ok(url),
        "http" if secret::is_this_host(host) => Ok(url),
        "http" => Err(format!("is not encrypted, and {host} is another host: use https")),
        other => Err(format!("is neither http nor https but {other}")),
    }
}

/// A URL that is a secret by itself; it never appears in an error.
pub fn secret_url(file: &Path) -> Result<Url, Delivery> {
    let text = secret::first_line(file).map_err(Delivery::Later)?;
    safe_url(&text).map_err(|why| Delivery::Later(format!("{}: what stands in it {why}", file.display())))
}

pub struct Answered {
    pub status: StatusCode,
    pub text: String,
    pub retry_after: Option<Span>,
}

pub async fn post(
    client: &Client,
    url: Url,
    body: String,
    headers: &[(&'static str, String)],
) -> Result<Answered, Delivery> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut request = client.post(url).header(header::CONTENT_TYPE, "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let later = |error: &reqwest::Error| Delivery::Later(format!("{host}: {}", root_cause(error)));
    let mut answer = request.send().await.map_err(|error| later(&error))?;
    let status = answer.status();
    let retry_after = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok())
        .map(|s| Span::from_secs(s.max(1)).min(WAIT_MAX));
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| later(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_MAX {
            bytes.truncate(ANSWER_MAX);
            break;
        }
    }
    let text: String = String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Ok(Answered { status, text: text.trim().to_owned(), retry_after })
}

impl Answered {
    /// 2xx is yes. 429 and 503 may say when; a body that the other side cannot read will not be better tomorrow;
    /// everything else (a revoked address, a server in trouble) is mended by people.
    pub fn understood(self, who: &str) -> Result<(), Delivery> {
        let why = || {
            let shown: String = self.text.chars().take(200).collect();
            if shown.is_empty() {
                format!("{who}: {}", self.status)
            } else {
                format!("{who}: {}: {shown}", self.status)
            }
        };
        match (self.status, self.retry_after) {
            (status, _) if status.is_success() => Ok(()),
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(wait)) => {
                Err(Delivery::NotBefore(why(), wait))
            }
            (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY, _) => {
                Err(Delivery::Never(why()))
            }
            _ => Err(Delivery::Later(why())),
        }
    }
}
