//! The simulator's own guarantees: it is deterministic, and it finds bugs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::planted::{self, Bug};

/// What CI plays; a planted bug must be found within it.
const CI_SEEDS: u64 = 400;

#[test]
fn the_same_seed_gives_the_same_journal() {
    for seed in [1, 2, 77] {
        let (a, b) = (run(seed, false), run(seed, true));
        assert_eq!((a.hash, a.inputs, a.violation), (b.hash, b.inputs, b.violation));
    }
    assert_ne!(run(1, false).hash, run(2, false).hash);
}

#[test]
fn the_first_seeds_hold_every_promise() {
    for seed in 0..40 {
        let report = run(seed, false);
        assert_eq!(report.violation, None, "seed {seed}");
    }
}

/// Every guard that is taken away is missed within the seeds that CI plays.
#[test]
fn every_planted_bug_is_found() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    match (0..CI_SEEDS)
                        .find_map(|seed| Some((seed, planted::with(bug, || run(seed, false)).violation?)))
                    {
                        Some((seed, v)) => println!("{bug:?}: seed {seed}, promise {}: {}", v.promise, v.what),
                        None => missed.lock().unwrap().push(bug),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found within {CI_SEEDS} seeds: {missed:?}");
    const { assert!(Bug::ALL.len() >= 20) };
}
