//! journald, field by field: every field of an event as `FLIPBACK_…`, and a MESSAGE_ID for each kind of event, by which
//! `journalctl` finds it and catalogues explain it. (The library for this has no way to give an event its id.)

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;

use sha2::{Digest, Sha256};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const SOCKET: &str = "/run/systemd/journal/socket";

/// journald takes some 200 KiB in a datagram of the usual kernel; what is longer is cut, which no line of ours is.
const VALUE_MAX: usize = 32 * 1024;

/// The id of an event, by its message; notices have one for each reason. docs/LOGS.md lists them all.
pub fn message_id(message: &str, reason: Option<&str>) -> String {
    let name = match (message, reason) {
        ("notice", Some(reason)) => format!("notice {reason}"),
        _ => message.to_owned(),
    };
    let digest = Sha256::digest(format!("flipback event: {name}").as_bytes());
    let mut bytes: [u8; 16] = std::array::from_fn(|i| digest[i]);
    // What systemd-id128 makes is a version 4 UUID, and so are these to look at.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    hex::encode(bytes)
}

pub struct Journald(UnixDatagram);

impl Journald {
    pub fn new() -> io::Result<Journald> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        // A journal that does not take anything holds up no rollback.
        socket.set_nonblocking(true)?;
        Ok(Journald(socket))
    }
}

#[derive(Default)]
struct Fields {
    out: Vec<u8>,
    message: String,
    reason: Option<String>,
}

/// A field in journald's own format: a value of several lines has its length before it.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(VALUE_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value.as_bytes()[..end];
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// journald's names: capital letters, digits, underscores.
fn field_name(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    format!("FLIPBACK_{}", plain.take(50).collect::<String>())
}

impl Fields {
    fn take(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => {
                if name == "reason" {
                    self.reason = Some(value.to_owned());
                }
                put(&mut self.out, &field_name(name), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.take(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }
}

impl<S: Subscriber> Layer<S> for Journald {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let Fields { mut out, message, reason } = fields;
        put(&mut out, "MESSAGE", &message);
        put(&mut out, "PRIORITY", priority);
        put(&mut out, "SYSLOG_IDENTIFIER", "flipback");
        put(&mut out, "FLIPBACK_TARGET", event.metadata().target());
        if event.metadata().target().starts_with("flipback") {
            put(&mut out, "MESSAGE_ID", &message_id(&message, reason.as_deref()));
        }
        // There is nobody to tell that it cannot be told.
        let _ = self.0.send(&out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_for_life() {
        // Catalogues and alerts are built on these: a change here breaks them.
        assert_eq!(message_id("flipback is up", None), message_id("flipback is up", Some("x")));
        assert_ne!(message_id("notice", Some("breach")), message_id("notice", Some("passed")));
        assert_eq!(message_id("flipback is up", None).len(), 32);
    }

    #[test]
    fn a_value_of_several_lines_cannot_make_fields() {
        let mut out = Vec::new();
        put(&mut out, "FLIPBACK_WHY", "a\nPRIORITY=0");
        assert_eq!(out, b"FLIPBACK_WHY\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
        assert_eq!(field_name("old-slot.x"), "FLIPBACK_OLD_SLOT_X");
    }
}
