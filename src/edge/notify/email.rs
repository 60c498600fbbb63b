//! Mail by SMTP.

use std::fmt;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::render::Rendered;
use crate::config::settings::{EmailSettings, MailTls};
use crate::domain::notice::{Notice, Severity};
use crate::domain::time::Span;

/// Why a mail did not get through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Try again later. Nearly everything: a full mailbox, a refused login and a wrong address are mended
    /// by people, and a page must not be lost meanwhile.
    Later(String),
    /// The message itself cannot be made or sent, now or ever.
    Never(String),
}

#[derive(Debug)]
pub struct MailError(String);

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MailError {}

#[derive(Clone)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    host: String,
    timeout: Span,
}

impl Mailer {
    /// `host` names this machine in message ids.
    pub fn new(settings: &EmailSettings, host: &str) -> Result<Self, MailError> {
        type Smtp = AsyncSmtpTransport<Tokio1Executor>;
        let wrong = |error: &dyn fmt::Display| MailError(format!("[email]: {error}"));
        let mut builder = match settings.tls {
            MailTls::None => Smtp::builder_dangerous(&settings.host),
            MailTls::StartTls => Smtp::starttls_relay(&settings.host).map_err(|e| wrong(&e))?,
            MailTls::Implicit => Smtp::relay(&settings.host).map_err(|e| wrong(&e))?,
        }
        .port(settings.port)
        .timeout(Some(settings.timeout.to_std()));
        if let Some(login) = &settings.login {
            let password = std::fs::read_to_string(&login.password_file)
                .map_err(|e| MailError(format!("[email] {}: {e}", login.password_file.display())))?;
            builder = builder.credentials(Credentials::new(login.username.clone(), password.trim_end().to_owned()));
        }
        let address = |text: &String| text.parse::<Mailbox>().map_err(|e| wrong(&format!("{text}: {e}")));
        Ok(Self {
            transport: builder.build(),
            from: address(&settings.from)?,
            to: settings.to.iter().map(address).collect::<Result<_, _>>()?,
            host: host.to_owned(),
            timeout: settings.timeout,
        })
    }

    /// Each recipient gets a message of their own, all with the same Message-ID: one refused address does
    /// not cost the others. The notice counts as delivered when anybody has it.
    pub async fn send(&self, notice: &Notice, rendered: &Rendered) -> Result<(), Delivery> {
        let mut delivered = 0;
        let mut refused: Vec<String> = Vec::new();
        for to in &self.to {
            let message = self.message(notice, rendered, to).map_err(|e| Delivery::Never(e.to_string()))?;
            match tokio::time::timeout(self.timeout.to_std(), self.transport.send(message)).await {
                Ok(Ok(_)) => delivered += 1,
                Ok(Err(error)) => refused.push(format!("{}: {}", to.email, causes(&error))),
                Err(_) => refused.push(format!("{}: no answer within {}", to.email, self.timeout)),
            }
        }
        if delivered > 0 {
            for why in &refused {
                tracing::warn!(notice = %notice.key, recipient = %why, "a recipient was refused, others have the mail");
            }
            return Ok(());
        }
        Err(Delivery::Later(refused.join("; ")))
    }

    fn message(&self, notice: &Notice, rendered: &Rendered, to: &Mailbox) -> Result<Message, lettre::error::Error> {
        let id =
            |n: u32| format!("<{}.n{n}@flipback.{}>", header_safe(notice.key.switch.as_str()), header_safe(&self.host));
        let severity = match notice.reason.severity() {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Page => "page",
        };
        let raw = |name: &'static str, value: String| HeaderValue::new(HeaderName::new_from_ascii_str(name), value);
        let mut builder = Message::builder()
            .from(self.from.clone())
            .to(to.clone())
            .subject(rendered.subject.clone())
            .message_id(Some(id(notice.key.n)))
            .raw_header(raw("Auto-Submitted", "auto-generated".into()))
            .raw_header(raw("X-Flipback-Severity", severity.into()))
            .raw_header(raw("X-Flipback-Reason", notice.reason.word().into()))
            .raw_header(raw("X-Flipback-Switch", header_safe(notice.key.switch.as_str())));
        if notice.key.n > 1 {
            builder = builder.in_reply_to(id(1)).references(id(1));
        }
        if rendered.html.is_empty() {
            return builder.header(ContentType::TEXT_PLAIN).body(rendered.text.clone());
        }
        builder.multipart(MultiPart::alternative_plain_html(rendered.text.clone(), rendered.html.clone()))
    }
}

/// Names are checked when they come in; a header is not the place to rely on it.
fn header_safe(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
