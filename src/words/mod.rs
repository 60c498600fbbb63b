//! Words and numbers for people, whatever they are read on.

pub mod numbers;
pub mod rows;
pub mod safe;
pub mod template;
