//! Integration tests, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and real parts live in real time"
)]

mod access;
mod actuators;
mod audit;
mod backtest;
mod bad_config;
mod bad_events;
mod bad_requests;
mod bench;
mod browser;
mod canary;
mod channels;
mod counts;
mod crash_points;
mod docs;
mod exact_counts;
mod faults;
mod fleet;
mod journal;
mod jumps;
mod ladder;
mod layers;
mod log_events;
mod loop_on_real_parts;
mod mails;
mod monitoring;
mod native;
mod page;
mod page_load;
mod past;
mod recipes;
mod scraped;
mod stack;
mod steps;
mod stub;
mod terminal;
mod unit;
mod variants;
mod ways_in;
