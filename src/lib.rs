//! flipback watches blue/green switches and moves the traffic back when a limit is truly breached.
//!
//! A pure engine decides; everything that touches the world sits at the edge. Imports run one way:
//!
//! ```text
//! main → cli → { runtime, sim } → { edge, journal, config } → engine → judge → domain
//! ```
//!
//! `shim` stands beside: it carries out one step in a process of its own. ARCHITECTURE.md has the map
//! and the invariants; `tests/it/layers.rs` fails on an import against the direction.

#![forbid(unsafe_code)]

pub mod account;
pub mod chart;
pub mod cli;
pub mod config;
pub mod domain;
pub mod edge;
pub mod engine;
pub mod face;
pub mod foreign;
pub mod journal;
pub mod judge;
mod planted;
pub mod runtime;
pub mod shim;
pub mod sim;
pub mod words;
