//! The edge: everything that touches the world. It imports `domain` and `engine::message`, never engine internals.

pub mod actuators;
pub mod api;
pub mod authorities;
pub mod detectors;
pub mod haproxy;
pub mod heartbeat;
pub mod hooks;
pub mod inbox;
pub mod journald;
pub mod metrics;
pub mod notify;
pub mod page;
mod process;
pub mod schedule;
pub mod secret;
pub mod sources;
pub mod systemd;
pub mod telemetry;
