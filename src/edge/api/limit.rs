//! How much one sender may ask for: a bucket of tokens each, so that a flood from one is told to come back and
//! everybody else is served.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Senders that are remembered; the fullest bucket makes room for a new one.
const SENDERS_MAX: usize = 1024;

pub struct Limiter {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
    /// Whether the present flood was told of.
    told: bool,
}

/// What a sender that asks too much is told; the first of a flood is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch {
    pub first: bool,
}

impl Limiter {
    pub fn new(per_second: f64, burst: f64) -> Limiter {
        Limiter { per_second, burst, buckets: Mutex::default() }
    }

    pub fn take(&self, sender: &str, now: Instant) -> Result<(), TooMuch> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SENDERS_MAX && !buckets.contains_key(sender) {
            let fullest = buckets.iter().max_by(|a, b| a.1.tokens.total_cmp(&b.1.tokens)).map(|(name, _)| name.clone());
            fullest.map(|name| buckets.remove(&name));
        }
        let fresh = Bucket { tokens: self.burst, at: now, told: false };
        let bucket = buckets.entry(sender.to_owned()).or_insert(fresh);
        let more = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        (bucket.tokens, bucket.at) = ((bucket.tokens + more).min(self.burst), now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            // Half full again: the flood is over, the next one is told of anew.
            bucket.told &= bucket.tokens < self.burst / 2.0;
            return Ok(());
        }
        let first = !std::mem::replace(&mut bucket.told, true);
        Err(TooMuch { first })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_from_one_is_not_everybodys() {
        let limiter = Limiter::new(10.0, 5.0);
        let now = Instant::now();
        let taken = (0..100).filter(|_| limiter.take("a", now).is_ok()).count();
        assert_eq!(taken, 5);
        assert_eq!(limiter.take("b", now), Ok(()));
        assert_eq!(limiter.take("a", now), Err(TooMuch { first: false }), "told once");
        assert_eq!(limiter.take("a", now + Duration::from_millis(100)), Ok(()));
    }

    #[test]
    fn senders_are_bounded() {
        let limiter = Limiter::new(1.0, 1.0);
        let now = Instant::now();
        (0..3000).for_each(|n| {
            let _ = limiter.take(&n.to_string(), now);
        });
        assert!(limiter.buckets.lock().unwrap().len() <= SENDERS_MAX);
    }
}
