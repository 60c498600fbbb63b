//! flipback's own check of a slot.

use std::io;

use tokio::net::TcpStream;

use super::command;
use super::native::http::root;
use crate::domain::plan::{HealthCheck, HealthReading};
use crate::edge::authorities::of_this_machine;

/// Asks slots over HTTP: no redirects, no proxy from the environment, no connection kept between
/// checks (a kept one would hide that new ones are refused).
#[derive(Debug, Clone)]
pub struct HealthChecker {
    client: reqwest::Client,
}

impl HealthChecker {
    pub fn new() -> Result<Self, String> {
        let client = of_this_machine(reqwest::Client::builder())
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
                Err(error) => judged(format!("{url}: {}", root(&error)), io_cause(&error)),
            },
            HealthCheck::Tcp { address, timeout } => {
                match tokio::time::timeout(timeout.to_std(), TcpStream::connect(address)).await {
                    Ok(Ok(_)) => HealthReading::Good,
                    Ok(Err(error)) => judged(format!("{address}: {error}"), Some(&error)),
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

/// A fault on our own side (no name server, no route, no descriptors left) says nothing of the slot.
fn judged(text: String, cause: Option<&io::Error>) -> HealthReading {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    let ours = cause.is_some_and(|error| {
        matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
            || matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable
            )
    });
    if ours || text.contains("failed to lookup address") {
        HealthReading::Unreadable(text)
    } else {
        HealthReading::Bad(text)
    }
}

fn io_cause(error: &reqwest::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::domain::action::Exec;
    use crate::domain::time::Span;

    const SOON: Span = Span::from_millis(300);

    fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    async fn http(url: String) -> HealthReading {
        let _ = rustls::crypto::ring::default_provider().install_default();
        HealthChecker::new().unwrap().ask(&HealthCheck::Http { url, timeout: SOON }).await
    }

    #[tokio::test]
    async fn what_the_slot_answers_is_evidence() {
        let ok = serve("HTTP/1.1 204 No Content\r\n\r\n");
        let moved = serve("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
        let broken = serve("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let of = |port: u16| format!("http://127.0.0.1:{port}/healthz");
        assert_eq!(http(of(ok)).await, HealthReading::Good);
        assert_eq!(http(of(moved)).await, HealthReading::Good, "it answers; nobody follows it");
        for (port, why) in
            [(broken, "answered 503"), (1, "refused"), (silent.local_addr().unwrap().port(), "within 300ms")]
        {
            let reading = http(of(port)).await;
            assert!(matches!(&reading, HealthReading::Bad(text) if text.contains(why)), "{reading:?}");
        }
    }

    #[tokio::test]
    async fn what_fails_on_our_own_side_is_none() {
        let reading = http("http://no-such-host.invalid/healthz".into()).await;
        assert!(matches!(reading, HealthReading::Unreadable(_)), "{reading:?}");
        let checker = HealthChecker::new().unwrap();
        let tcp = HealthCheck::Tcp { address: "no-such-host.invalid:80".into(), timeout: SOON };
        let reading = checker.ask(&tcp).await;
        assert!(matches!(reading, HealthReading::Unreadable(_)), "{reading:?}");
        let exec = |program: &str| HealthCheck::Exec { exec: Exec::new([program]), timeout: SOON };
        assert!(matches!(checker.ask(&exec("/no/such/program")).await, HealthReading::Unreadable(_)));
        assert!(matches!(checker.ask(&exec("/bin/false")).await, HealthReading::Bad(_)));
        assert_eq!(checker.ask(&exec("/bin/true")).await, HealthReading::Good);
    }
}
