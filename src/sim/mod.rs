//! The engine in worlds that are made: test vectors, scenarios, and the rules that others use.

pub mod faults;
pub mod past;
pub mod player;
pub mod scenarios;
pub mod stage;
pub mod table;
pub mod traffic;
pub mod vectors;
