//! flipback watches blue/green switches and moves the traffic back when a limit is truly breached.
pub mod config;
pub mod domain;
pub mod edge;
pub mod engine;
pub mod journal;
pub mod judge;
pub mod shim;
