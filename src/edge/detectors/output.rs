//! A command's lines: `green`, or one line for each slot with its weight: `blue 95`.

/// More lines than this are no weights.
const LINES_MAX: usize = 64;

pub fn weights(output: &str) -> Result<Vec<(String, f64)>, String> {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err("it printed nothing".into());
    }
    if lines.len() > LINES_MAX {
        return Err(format!("it printed more than {LINES_MAX} lines"));
    }
    lines
        .iter()
        .map(|line| {
            let shown = || line.chars().take(60).collect::<String>();
            let mut words = line.split_whitespace();
            let (name, weight) = (words.next().unwrap_or_default(), words.next());
            if words.next().is_some() || (weight.is_none() && lines.len() > 1) {
                return Err(format!("{:?} is not a slot and its weight", shown()));
            }
            let weight = weight.unwrap_or("1").trim_end_matches('%').parse::<f64>();
            match weight {
                Ok(weight) if weight.is_finite() && weight >= 0.0 => Ok((name.to_owned(), weight)),
                _ => Err(format!("{:?} has no weight", shown())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_or_weights() {
        assert_eq!(weights(" green\n").unwrap(), [("green".to_owned(), 1.0)]);
        assert_eq!(weights("blue 95\ngreen 5%\n").unwrap(), [("blue".to_owned(), 95.0), ("green".to_owned(), 5.0)]);
        for bad in ["", "blue\ngreen", "blue -1\ngreen 2", "blue NaN\ngreen 1", "usage: weights [-h] [--alias NAME]"] {
            assert!(weights(bad).is_err(), "{bad:?}");
        }
    }
}
