//! Integration tests, in one binary.

mod bad_config;
mod exact_counts;
mod layers;
mod loop_on_real_parts;
mod stack;
mod unit;
