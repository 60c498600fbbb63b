//! Numbers by slot, as parts of the whole.

/// Rates are noisy where both slots serve: the traffic is where this part of it is, so that it is not said to
/// have moved twice.
const MOST: f64 = 0.6;

/// Each one's part of the sum.
pub fn parts(weights: Vec<(String, f64)>) -> Result<Vec<(String, f64)>, String> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    for (name, weight) in weights {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += weight,
            None => sums.push((name, weight)),
        }
    }
    let all: f64 = sums.iter().map(|(_, weight)| weight).sum();
    if !(all.is_finite() && all > 0.0) {
        return Err("there is no traffic to tell by".into());
    }
    Ok(sums.into_iter().map(|(name, weight)| (name, weight / all)).filter(|(_, part)| *part > 0.0).collect())
}

/// The one that most of it is on; `None` while it is on its way.
pub fn most(weights: Vec<(String, f64)>) -> Result<Option<String>, String> {
    let parts = parts(weights)?;
    let most = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    match most {
        Some((name, part)) => Ok((part >= MOST).then_some(name)),
        None => Err("there is no traffic to tell by".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(&str, f64)]) -> Vec<(String, f64)> {
        all.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    #[test]
    fn parts_of_the_whole() {
        assert_eq!(
            parts(of(&[("blue", 3.0), ("green", 1.0), ("blue", 0.0)])).unwrap(),
            of(&[("blue", 0.75), ("green", 0.25)])
        );
        assert_eq!(most(of(&[("blue", 1.0), ("green", 9.0)])), Ok(Some("green".into())));
        assert_eq!(most(of(&[("blue", 5.0), ("green", 5.0)])), Ok(None), "on its way");
        assert!(most(of(&[("blue", 0.0)])).is_err() && most(Vec::new()).is_err());
    }
}
