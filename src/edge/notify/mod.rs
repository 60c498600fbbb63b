//! Telling people: the durable outbox, and mail.

mod drill;
pub mod email;
pub mod outbox;
pub mod render;
mod words;

pub use email::{Delivery, Mailer};
pub use render::{Rendered, ShownQuery, render};
