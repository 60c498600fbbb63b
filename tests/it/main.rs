//! Integration tests, in one binary.

mod loop_on_real_parts;
mod stack;
