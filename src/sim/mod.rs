//! The engine in worlds that are made: test vectors, scenarios, and the rules that others use.

pub mod vectors;
