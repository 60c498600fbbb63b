//! Telling people: the durable outbox, who is told what, and the channels.

pub mod channel;
pub mod charts;
pub mod desk;
mod drill;
mod five;
pub mod message;
mod others;
pub mod outbox;
pub mod page;
pub mod route;
pub mod sample;
pub mod summary;
pub mod templates;
pub mod trial;
mod words;

pub use channel::{Delivery, Mailer};
pub use message::{Enclosed, Message};
pub use page::ShownQuery;
