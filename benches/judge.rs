//! What the judgement costs: a tick of each signal, and whole soaks through the engine.
//! `cargo bench` prints times; "elem/s" of the soaks is simulated soak-hours per second on one core.
#![allow(clippy::unwrap_used, reason = "a bench that cannot begin has failed")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flipback::judge::eprocess::{Ceiling, EProcess, Terms};
use flipback::judge::normal::Normal;
use flipback::sim::player::{Setup, play, trace};
use flipback::sim::traffic::Traffic;

fn process(latency: bool) -> EProcess {
    let normal = Normal { n: 180_000.0, x: 180.0, phi: 1.1, rate: 50.0, env: 1.0 };
    let terms = Terms {
        alpha: 0.001,
        weight: 0.5,
        k: 1.5,
        floor: 0.001,
        min_ticks: 3.0,
        horizon_s: 1800.0,
        warmup_s: 30.0,
        warmup_floor: 0.25,
        block_s: 5.0,
        ceiling: Ceiling::Sliding,
        latency,
    };
    EProcess::new(normal, terms)
}

fn ticks(c: &mut Criterion) {
    let mut group = c.benchmark_group("tick");
    for (name, latency, tick_s) in [("errors, 15 s", false, 15.0), ("errors, 1 s", false, 1.0), ("p99, 1 s", true, 1.0)]
    {
        // A soak that has begun: the first ticks are cheaper.
        let mut begun = process(latency);
        for i in 1..=60 {
            begun.tick(f64::from(i) * tick_s, 50.0 * tick_s, f64::from(i % 3 == 0));
        }
        let t = 61.0 * tick_s;
        group.bench_function(name, |b| {
            b.iter_batched_ref(|| begun.clone(), |p| black_box(p.tick(t, 50.0 * tick_s, 1.0)), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn soaks(c: &mut Criterion) {
    let mut group = c.benchmark_group("soak-hours");
    for (name, tick_s, latency) in
        [("15 s, errors", 15, false), ("15 s, errors p95 p99", 15, true), ("1 s, all", 1, true)]
    {
        let traffic = Traffic { latency, ..Traffic::steady(50.0, 0.001) };
        let setup = Setup { tick_s, ..Setup::new(traffic) };
        let played = trace(&setup, 1);
        assert_eq!(play(&setup, &played), None, "a healthy soak goes to its end");
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |b| // Two soaks of half an hour: one element.
            b.iter(|| [0, 1].map(|_| play(&setup, black_box(&played)))));
    }
    group.finish();
}

criterion_group! {
    name = judge;
    config = Criterion::default().sample_size(30);
    targets = ticks, soaks
}
criterion_main!(judge);
