//! flipback's own check of a slot.

use tokio::net::TcpStream;

use super::command;
use crate::domain::plan::{HealthCheck, HealthReading};

/// Asks slots over HTTP: no redirects, no proxy from the environment, no connection kept between
/// checks (a kept one would hide that new ones are refused).
#[derive(Debug, Clone)]
pub struct HealthChecker {
    client: reqwest::Client,
}

impl HealthChecker {
    pub fn new() -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .user_agent(concat!("flipback/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client })
    }

    pub async fn ask(&self, check: &HealthCheck) -> HealthReading {
        match check {
            HealthCheck::Http { url, timeout } => match self.client.get(url).timeout(timeout.to_std()).send().await {
                Ok(answer) if answer.status().is_success() || answer.status().is_redirection() => HealthReading::Good,
                Ok(answer) => HealthReading::Bad(format!("{url} answered {}", answer.status())),
                Err(error) if error.is_builder() => HealthReading::Unreadable(format!("{url}: {error}")),
                Err(error) if error.is_timeout() => {
                    HealthReading::Bad(format!("{url} did not answer within {timeout}"))
                }
                Err(error) if error.is_connect() => HealthReading::Bad(format!("{url}: {}", root(&error))),
                Err(error) => HealthReading::Bad(format!("{url}: {}", root(&error))),
            },
            HealthCheck::Tcp { address, timeout } => {
                match tokio::time::timeout(timeout.to_std(), TcpStream::connect(address)).await {
                    Ok(Ok(_)) => HealthReading::Good,
                    Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidInput => {
                        HealthReading::Unreadable(format!("{address}: {error}"))
                    }
                    Ok(Err(error)) => HealthReading::Bad(format!("{address}: {error}")),
                    Err(_) => HealthReading::Bad(format!("{address} took no connection within {timeout}")),
                }
            }
            HealthCheck::Exec { exec, timeout } => match command::run(exec, *timeout).await {
                Ok(finished) if finished.status.success() => HealthReading::Good,
                Ok(finished) => HealthReading::Bad(format!("{exec} ended with {}", finished.status)),
                // It hung: as a slot that does not answer would make it.
                Err(why) if why.contains("did not end within") => HealthReading::Bad(why),
                Err(why) => HealthReading::Unreadable(why),
            },
        }
    }
}

/// The innermost cause: "Connection refused" rather than "error sending request".
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
