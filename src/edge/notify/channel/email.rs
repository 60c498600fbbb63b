//! Mail by SMTP.

use std::fmt;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor};

use super::{ChannelError, Delivery};
use crate::config::settings::{EmailSettings, MailTls};
use crate::domain::time::Span;
use crate::edge::notify::message::Message;

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
    pub fn new(settings: &EmailSettings, host: &str) -> Result<Self, ChannelError> {
        type Smtp = AsyncSmtpTransport<Tokio1Executor>;
        let wrong = |error: &dyn fmt::Display| ChannelError(format!("[email]: {error}"));
        let tls = || -> Result<TlsParameters, ChannelError> {
            let mut parameters = TlsParameters::builder(settings.host.clone());
            if let Some(file) = &settings.ca_file {
                let pem = std::fs::read(file).map_err(|e| wrong(&format!("{}: {e}", file.display())))?;
                let all = Certificate::from_pem(&pem).map_err(|e| wrong(&format!("{}: {e}", file.display())))?;
                parameters = parameters.add_root_certificate(all);
            }
            parameters.build_rustls().map_err(|e| wrong(&e))
        };
        let mut builder = match settings.tls {
            MailTls::None => Smtp::builder_dangerous(&settings.host),
            // Required: a server that takes it away does not get the password in the clear.
            MailTls::StartTls => Smtp::builder_dangerous(&settings.host).tls(Tls::Required(tls()?)),
            MailTls::Implicit => Smtp::builder_dangerous(&settings.host).tls(Tls::Wrapper(tls()?)),
        }
        .port(settings.port)
        .timeout(Some(settings.timeout.to_std()));
        if let Some(login) = &settings.login {
            let password =
                crate::edge::secret::text(&login.password_file).map_err(|e| ChannelError(format!("[email] {e}")))?;
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
    pub async fn send(&self, message: &Message) -> Result<(), Delivery> {
        let mut delivered = 0;
        let mut refused: Vec<String> = Vec::new();
        for to in &self.to {
            let mail = self.mail(message, to).map_err(|e| Delivery::Never(e.to_string()))?;
            match tokio::time::timeout(self.timeout.to_std(), self.transport.send(mail)).await {
                Ok(Ok(_)) => delivered += 1,
                Ok(Err(error)) => refused.push(format!("{}: {}", to.email, causes(&error))),
                Err(_) => refused.push(format!("{}: no answer within {}", to.email, self.timeout)),
            }
        }
        if delivered > 0 {
            for why in &refused {
                tracing::warn!(
                    notice = %message.letter.key(), recipient = %why,
                    "a recipient was refused, others have the mail"
                );
            }
            return Ok(());
        }
        Err(Delivery::Later(refused.join("; ")))
    }

    fn mail(&self, message: &Message, to: &Mailbox) -> Result<Mail, lettre::error::Error> {
        let id = |key: &str| format!("<{}@flipback.{}>", header_safe(key), header_safe(&self.host));
        let raw = |name: &'static str, value: String| HeaderValue::new(HeaderName::new_from_ascii_str(name), value);
        let page = &message.page;
        let own = super::webhook::id(message);
        let mut builder = Mail::builder()
            .from(self.from.clone())
            .to(to.clone())
            .subject(message.subject.clone())
            .message_id(Some(id(&own)))
            .raw_header(raw("Auto-Submitted", "auto-generated".into()))
            .raw_header(raw("X-Flipback-Severity", page.severity.into()))
            .raw_header(raw("X-Flipback-Reason", page.kind.into()))
            .raw_header(raw("X-Flipback-Key", header_safe(&own)))
            .raw_header(raw("X-Flipback-Switch", header_safe(&page.switch)));
        // All of a switch is one thread, whichever of its notices somebody got.
        if let Some(notice) = message.letter.notice() {
            let first = format!("{}.n1", notice.key.switch);
            let before = message.earlier.last().map(|told| format!("{}.n{}", notice.key.switch, told.n));
            if first != own {
                let mut references = vec![id(&first)];
                references.extend(before.clone().filter(|b| *b != first && *b != own).map(|b| id(&b)));
                builder = builder.in_reply_to(id(&before.unwrap_or(first))).references(references.join(" "));
            }
        }
        if message.html.is_empty() {
            return builder.header(ContentType::TEXT_PLAIN).body(message.text.clone());
        }
        if message.pictures.is_empty() {
            let both = MultiPart::alternative_plain_html(message.text.clone(), message.html.clone());
            return builder.multipart(both);
        }
        let mut related = MultiPart::related().singlepart(SinglePart::html(message.html.clone()));
        for picture in &message.pictures {
            // The type is two constants and always parses.
            if let Ok(png) = ContentType::parse("image/png") {
                related =
                    related.singlepart(Attachment::new_inline(picture.cid.clone()).body(picture.png.clone(), png));
            }
        }
        builder
            .multipart(MultiPart::alternative().singlepart(SinglePart::plain(message.text.clone())).multipart(related))
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
