//! The edge: everything that touches the world. It imports `domain` and `engine::message`, never engine internals.

pub mod actuators;
pub mod inbox;
pub mod sources;
