//! An HTTP request as a step, and one as a probe. No redirects, no proxy, no cookies; destinations come from the
//! configuration alone.

use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::domain::action::{HttpCall, HttpLook, HttpTarget, Shows};
use crate::domain::time::Span;
use crate::edge::actuators::probe::only_line;
use crate::edge::authorities::of_this_machine;
use crate::edge::secret;

/// A probe's answer: a Kubernetes object of the largest kind is 1.5 MiB.
const ANSWER_MAX: usize = 2 * 1024 * 1024;

/// Of a step's answer so much is kept as its output.
const SHOWN_MAX: usize = 2000;

/// One key for each attempt: a server that takes it twice does it once.
const KEY: &str = "Idempotency-Key";

pub async fn act(call: &HttpCall, key: &str, left: Duration) -> Result<(), String> {
    let method = Method::from_bytes(call.method.as_bytes()).map_err(|_| format!("{} is no method", call.method))?;
    let mut request = request(method, &call.target, left)?;
    if !call.target.headers.keys().any(|name| name.eq_ignore_ascii_case(KEY)) {
        request = request.header(KEY, key);
    }
    if let Some(body) = &call.body {
        request = request.body(body.clone());
    }
    let answer = send(request, &call.target).await?;
    let status = answer.status();
    let text = body(answer).await?;
    let shown: String = text.trim().chars().take(SHOWN_MAX).collect();
    println!("{} {}: {status}", call.method, call.target.url);
    println!("{shown}");
    let good = match call.expect_status.as_slice() {
        [] => status.is_success(),
        some => some.contains(&status.as_u16()),
    };
    if good { Ok(()) } else { Err(format!("{} {} answered {status}", call.method, call.target.url)) }
}

pub async fn look(look: &HttpLook, timeout: Span) -> Result<String, String> {
    let url = &look.target.url;
    let answer = send(request(Method::GET, &look.target, timeout.to_std())?, &look.target).await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("{url} answered {status}"));
    }
    if let Shows::Header(name) = &look.shows {
        let value = answer.headers().get(name).ok_or_else(|| format!("{url} answers without a header {name}"))?;
        return Ok(value.to_str().map_err(|_| format!("{url}: {name} is not text"))?.trim().to_owned());
    }
    let text = body(answer).await?;
    let json = match (&look.shows, look.require.is_empty()) {
        (Shows::Header(_) | Shows::Body, true) => Value::Null,
        _ => serde_json::from_str(&text).map_err(|error| format!("{url}: not JSON: {error}"))?,
    };
    for (pointer, wanted) in &look.require {
        let found = at(&json, pointer).unwrap_or_else(|| "missing".into());
        if found != *wanted {
            return Ok(format!("{pointer} is {found}, not {wanted}"));
        }
    }
    match &look.shows {
        Shows::Pointer(pointer) => at(&json, pointer).ok_or_else(|| format!("{url} has nothing at {pointer}")),
        Shows::Header(_) | Shows::Body => only_line(&text).map_err(|why| format!("{url} answers with {why}")),
    }
}

/// A text as it is, a number or a truth in JSON's words; anything else is no answer.
fn at(json: &Value, pointer: &str) -> Option<String> {
    match json.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        value @ (Value::Bool(_) | Value::Number(_)) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn request(method: Method, target: &HttpTarget, timeout: Duration) -> Result<RequestBuilder, String> {
    Ok(request_with(&client(target, false)?, method, target)?.timeout(timeout))
}

/// A client for one destination. `keeps`: connections are kept for the next request.
pub fn client(target: &HttpTarget, keeps: bool) -> Result<Client, String> {
    // The shim's child is a process of its own; the second call of another one changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = of_this_machine(Client::builder())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(usize::from(keeps))
        .user_agent(concat!("flipback/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &target.ca_file {
        let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let all = Certificate::from_pem_bundle(&pem).map_err(|error| format!("{}: {error}", file.display()))?;
        client = client.tls_certs_only(all);
    }
    client.build().map_err(|error| error.to_string())
}

/// A request with its headers; secrets are read from their files each time.
pub fn request_with(client: &Client, method: Method, target: &HttpTarget) -> Result<RequestBuilder, String> {
    let mut request = client.request(method, &target.url);
    for (name, value) in &target.headers {
        request = request.header(name, value);
    }
    for header in target.secret.iter().chain(&target.more_secrets) {
        let text = secret::first_line(&header.file)?;
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| format!("{} is no header", header.name))?;
        let mut value = HeaderValue::from_str(&format!("{}{text}", header.prefix))
            .map_err(|_| format!("{}: cannot be sent as a header", header.file.display()))?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    Ok(request)
}

async fn send(request: RequestBuilder, target: &HttpTarget) -> Result<Response, String> {
    request.send().await.map_err(|error| format!("{}: {}", target.url, root(&error)))
}

async fn body(mut answer: Response) -> Result<String, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| root(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_MAX {
            return Err("the answer is larger than 2 MiB".into());
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The innermost cause: "Connection refused" rather than "error sending request".
pub fn root(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// What a rollback would need, without moving anything: the credentials are there, and somebody listens.
pub async fn try_out(call: &HttpCall) -> Result<String, String> {
    let url = reqwest::Url::parse(&call.target.url).map_err(|error| format!("{}: {error}", call.target.url))?;
    // Reads the credentials and the authority as the step would.
    let _never_sent = request(Method::GET, &call.target, Duration::from_secs(5))?;
    let host = url.host_str().ok_or_else(|| format!("{url} names no host"))?;
    let address = (host.trim_matches(['[', ']']), url.port_or_known_default().unwrap_or(443));
    let connecting = tokio::net::TcpStream::connect(address);
    match tokio::time::timeout(Duration::from_secs(5), connecting).await {
        Ok(Ok(_)) => Ok("it takes connections; the request itself is not tried".into()),
        Ok(Err(error)) => Err(format!("{}: {error}", call.target.url)),
        Err(_) => Err(format!("{}: no connection within 5 s", call.target.url)),
    }
}
