//! The HTTP side of Prometheus: one client, bounded answers, retries inside the tick, one kind per failure.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use prometheus_http_query::{Client, InstantQueryBuilder};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::decode;
use super::history::Pace;
use super::observe::Meta;
use crate::config::settings::{PrometheusAuth, PrometheusSettings};
use crate::domain::signal::{FailureKind, ReadFailure};
use crate::domain::time::{Span, Timestamp};
use crate::edge::authorities::of_this_machine;

/// An answer of 10,000 series is some 2 MiB; beyond this somebody asked for the wrong thing.
const ANSWER_MAX: usize = 32 * 1024 * 1024;

/// A busy Prometheus may be asked twice more inside the tick.
const RETRIES: u32 = 2;

/// Handle on one Prometheus; clones share connections and what was learned of it.
#[derive(Clone)]
pub struct Prometheus {
    pub(super) client: Client,
    pub(super) settle: Option<Span>,
    pub(super) timeout: Span,
    /// How far the wall clock is from the daemon's own, in milliseconds.
    pub(super) stepped_ms: fn() -> i64,
    pub(super) meta: Arc<Mutex<HashMap<String, Meta>>>,
    /// Rests between questions about the past.
    pub(super) pace: Option<Arc<Pace>>,
    /// Further parameters of every query.
    params: Vec<(&'static str, String)>,
}

/// Why the client cannot be made: a configuration error.
#[derive(Debug)]
pub struct SourceError(String);

impl SourceError {
    pub fn new(why: impl Into<String>) -> SourceError {
        SourceError(why.into())
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}

impl Prometheus {
    pub fn new(settings: &PrometheusSettings) -> Result<Self, SourceError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let wrong = || SourceError(format!("[prometheus] headers.{name}: cannot be sent"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
        if let Some(auth) = &settings.auth {
            let mut value = authorization(auth)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut http = of_this_machine(reqwest::Client::builder())
            .timeout(settings.timeout.to_std())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .default_headers(headers)
            .user_agent(concat!("flipback/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &settings.ca_file {
            let all = reqwest::Certificate::from_pem_bundle(&pem(file)?);
            let all = all.map_err(|error| SourceError(format!("[prometheus] {}: {error}", file.display())))?;
            http = http.tls_certs_only(all);
        }
        if let Some(own) = &settings.certificate {
            let both = [pem(&own.cert_file)?, pem(&own.key_file)?].concat();
            let identity = reqwest::Identity::from_pem(&both).map_err(|error| {
                let (cert, key) = (own.cert_file.display(), own.key_file.display());
                SourceError(format!("[prometheus] {cert} and {key}: {error}"))
            })?;
            http = http.identity(identity);
        }
        let http = http.build().map_err(|error| SourceError(format!("[prometheus]: {error}")))?;
        let client = Client::from(http, settings.url.trim_end_matches('/'))
            .map_err(|error| SourceError(format!("[prometheus] url: {error}")))?;
        Ok(Self {
            client,
            settle: settings.settle,
            timeout: settings.timeout,
            stepped_ms: || 0,
            meta: Arc::default(),
            pace: None,
            params: settings.params.iter().map(|(name, value)| (*name, value.clone())).collect(),
        })
    }

    /// Rests between range queries, and counts them.
    pub fn paced(mut self, pace: Arc<Pace>) -> Self {
        self.pace = Some(pace);
        self
    }

    /// Where the daemon's clock may have been left behind by a stepped wall clock.
    pub fn with_steps(mut self, stepped_ms: fn() -> i64) -> Self {
        self.stepped_ms = stepped_ms;
        self
    }

    /// An instant query; `time` only for queries that carry no `@`.
    pub(super) async fn instant(&self, query: &str, time: Option<Timestamp>) -> Result<Vec<u8>, ReadFailure> {
        self.patiently(|| {
            let mut builder = self.instant_query(query);
            if let Some(time) = time {
                builder = builder.query("time", super::promql::at(time));
            }
            builder.post_raw()
        })
        .await
    }

    /// The same, with the server's word on what it cost.
    pub(super) async fn with_stats(&self, query: &str) -> Result<Vec<u8>, ReadFailure> {
        self.patiently(|| self.instant_query(query).stats().post_raw()).await
    }

    fn instant_query(&self, query: &str) -> InstantQueryBuilder {
        self.params.iter().fold(self.client.query(query), |builder, (name, value)| builder.query(name, value))
    }

    pub(super) async fn range(
        &self,
        query: &str,
        start: Timestamp,
        end: Timestamp,
        step: Span,
    ) -> Result<Vec<u8>, ReadFailure> {
        let secs = |t: Timestamp| t.as_millis().div_euclid(1000);
        let began = Instant::now();
        let ask = || {
            let builder = self.client.query_range(query, secs(start), secs(end), step.as_secs_f64());
            self.params.iter().fold(builder, |builder, (name, value)| builder.query(name, value)).post_raw()
        };
        let answer = self.patiently(ask).await;
        if let Some(pace) = &self.pace {
            pace.after(began, answer.as_ref().map_or(0, Vec::len)).await;
        }
        answer
    }

    /// The values of an instant query by one of its labels: for detectors.
    pub async fn by_label(&self, query: &str, label: &str) -> Result<Vec<(String, f64)>, ReadFailure> {
        let samples = decode::vector(&self.instant(query, None).await?)?;
        let named = samples.into_iter().filter_map(|mut s| Some((s.labels.remove(label)?, s.value)));
        Ok(named.collect())
    }

    /// Prometheus's own clock.
    pub(super) async fn time(&self) -> Result<Timestamp, ReadFailure> {
        let body = self.instant("time()", None).await?;
        // VictoriaMetrics knows no scalars: there it is a vector of one.
        let seconds = match decode::scalar(&body) {
            Ok(seconds) => seconds,
            Err(failure) => match decode::vector(&body)?.as_slice() {
                [one] => one.value,
                _ => return Err(failure),
            },
        };
        Ok(Timestamp::from_millis((seconds * 1000.0).round() as i64))
    }

    async fn patiently<F, A>(&self, mut ask: F) -> Result<Vec<u8>, ReadFailure>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<reqwest::Response, prometheus_http_query::Error>>,
    {
        let mut tries = 0;
        loop {
            let answer = ask().await.map_err(|error| transport(&error))?;
            let status = answer.status();
            let wait = retry_after(&answer);
            let body = read_bounded(answer).await?;
            if status.is_success() {
                return Ok(body);
            }
            let busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if busy && tries < RETRIES {
                tries += 1;
                // 100–300 ms apart, spread by the body's length rather than by chance; longer where asked.
                let spread = 100 + u64::try_from(body.len() % 100).unwrap_or(0) + 100 * u64::from(tries - 1);
                tokio::time::sleep(wait.unwrap_or(Span::from_millis(spread)).to_std()).await;
                continue;
            }
            let said = decode::refusal(&body);
            let kind = if busy { FailureKind::Unavailable } else { FailureKind::Rejected };
            let said = said.map_or(String::new(), |said| format!(": {said}"));
            return Err(ReadFailure { kind, detail: cut(&format!("Prometheus answered {status}{said}")) });
        }
    }
}

fn pem(path: &std::path::Path) -> Result<Vec<u8>, SourceError> {
    let mut bytes =
        std::fs::read(path).map_err(|error| SourceError(format!("[prometheus] {}: {error}", path.display())))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn authorization(auth: &PrometheusAuth) -> Result<HeaderValue, SourceError> {
    let secret = |path: &std::path::Path| {
        let text = crate::edge::secret::text(path);
        text.map(|t| t.trim().to_owned()).map_err(|e| SourceError(format!("[prometheus] {e}")))
    };
    let (path, text) = match auth {
        PrometheusAuth::Bearer { token_file } => (token_file, format!("Bearer {}", secret(token_file)?)),
        PrometheusAuth::Basic { username, password_file } => {
            let pair = format!("{username}:{}", secret(password_file)?);
            (password_file, format!("Basic {}", base64(&pair)))
        }
    };
    HeaderValue::from_str(&text)
        .map_err(|_| SourceError(format!("[prometheus] {}: it holds characters no header can carry", path.display())))
}

/// RFC 4648 with padding; the one place that needs it.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

async fn read_bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, ReadFailure> {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > ANSWER_MAX => {
                let detail = format!("the answer is larger than {} MiB", ANSWER_MAX / 1024 / 1024);
                return Err(ReadFailure { kind: FailureKind::Unusable, detail });
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(http_failure(error)),
        }
    }
}

fn retry_after(answer: &reqwest::Response) -> Option<Span> {
    /// Longer than this is another tick's business.
    const LONGEST: u64 = 3;
    let seconds: u64 = answer.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Span::from_secs(seconds.min(LONGEST)))
}

fn transport(error: &prometheus_http_query::Error) -> ReadFailure {
    let mut cause: &dyn std::error::Error = error;
    let mut timeout = false;
    loop {
        if let Some(http) = cause.downcast_ref::<reqwest::Error>() {
            timeout |= http.is_timeout();
        }
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    // The innermost cause only: the outer ones repeat the URL.
    let kind = if timeout { FailureKind::Timeout } else { FailureKind::Unreachable };
    ReadFailure { kind, detail: cut(&cause.to_string()) }
}

fn http_failure(error: reqwest::Error) -> ReadFailure {
    let kind = if error.is_timeout() { FailureKind::Timeout } else { FailureKind::Unreachable };
    ReadFailure { kind, detail: cut(&error.without_url().to_string()) }
}

/// One line of readable length.
pub(super) fn cut(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 300 { line.chars().take(299).chain(['…']).collect() } else { line }
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_as_in_the_rfc() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(super::base64(text), encoded);
        }
    }
}
