//! Who is signed in. Sessions live in memory: a restart signs everybody out, and nothing of them is on disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use rand::RngExt as _;
use sha2::{Digest, Sha256};

use crate::edge::api::Caller;

/// A shift and its handover.
const LASTS: Duration = Duration::from_secs(12 * 3600);

/// Browsers of one team. The oldest makes room.
const SESSIONS_MAX: usize = 256;

const COOKIE: &str = "flipback_session";

/// Takes the cookie away.
pub const GONE: &str = "flipback_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax";

/// The session's own name is not kept, only its digest: memory that leaks signs nobody in.
type Key = [u8; 32];

#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Key, Held>>);

struct Held {
    name: String,
    caller: Caller,
    since: Instant,
    said: Option<Said>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub name: String,
    /// Whose token it is, and what that may.
    pub caller: Caller,
}

/// What became of an order: shown once, on the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub text: String,
    pub tone: &'static str,
}

fn key(headers: &HeaderMap) -> Option<Key> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let own =
        cookies.flat_map(|all| all.split(';')).find_map(|one| one.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    Some(Sha256::digest(own.as_bytes()).into())
}

impl Sessions {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Key, Held>) -> T) -> T {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, session| session.since.elapsed() < LASTS);
        work(&mut held)
    }

    /// Begins one; the result is the cookie's header.
    pub fn begin(&self, name: String, caller: Caller, now: Instant, tls: bool) -> String {
        let bytes: [u8; 32] = rand::rng().random();
        let secret = hex::encode(bytes);
        let key: Key = Sha256::digest(secret.as_bytes()).into();
        self.with(|held| {
            if held.len() >= SESSIONS_MAX
                && let Some(oldest) = held.iter().min_by_key(|(_, session)| session.since).map(|(key, _)| *key)
            {
                held.remove(&oldest);
            }
            held.insert(key, Held { name, caller, since: now, said: None });
        });
        // On plain loopback a browser would throw a secure cookie away.
        let secure = if tls { "; Secure" } else { "" };
        format!("{COOKIE}={secret}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}", LASTS.as_secs())
    }

    pub fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let key = key(headers)?;
        self.with(|held| held.get(&key).map(|s| Session { name: s.name.clone(), caller: s.caller.clone() }))
    }

    pub fn end(&self, headers: &HeaderMap) {
        if let Some(key) = key(headers) {
            self.with(|held| held.remove(&key));
        }
    }

    pub fn say(&self, headers: &HeaderMap, said: Said) {
        if let Some(key) = key(headers) {
            self.with(|held| {
                if let Some(session) = held.get_mut(&key) {
                    session.said = Some(said);
                }
            });
        }
    }

    /// What is to be said, once.
    pub fn said(&self, headers: &HeaderMap) -> Option<Said> {
        let key = key(headers)?;
        self.with(|held| held.get_mut(&key).and_then(|session| session.said.take()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn caller() -> Caller {
        let grant = crate::domain::access::Grant::EVERYTHING;
        Caller { who: "the API token".into(), source: "http".into(), grant, token: None }
    }

    fn with_cookie(cookie: &str) -> HeaderMap {
        let own = cookie.split(';').next().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(&format!("theme=dark; {own}")).unwrap());
        headers
    }

    #[test]
    fn a_session_is_known_by_its_cookie_alone_and_ends() {
        let sessions = Sessions::default();
        let cookie = sessions.begin("ann".into(), caller(), Instant::now(), false);
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains("Secure"));
        let headers = with_cookie(&cookie);
        assert_eq!(sessions.of(&headers), Some(Session { name: "ann".into(), caller: caller() }));
        assert_eq!(sessions.of(&with_cookie("flipback_session=00")), None);
        assert_eq!(sessions.of(&HeaderMap::new()), None);
        sessions.say(&headers, Said { text: "done".into(), tone: "good" });
        assert!(sessions.said(&headers).is_some() && sessions.said(&headers).is_none(), "once");
        sessions.end(&headers);
        assert_eq!(sessions.of(&headers), None);
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_goes() {
        let sessions = Sessions::default();
        let first = sessions.begin(String::new(), caller(), Instant::now(), true);
        assert!(first.contains("; Secure"));
        (0..SESSIONS_MAX).for_each(|_| {
            sessions.begin(String::new(), caller(), Instant::now(), true);
        });
        assert_eq!(sessions.of(&with_cookie(&first)), None);
        assert_eq!(sessions.0.lock().unwrap().len(), SESSIONS_MAX);
    }
}
