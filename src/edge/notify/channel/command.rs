//! A program that gets the text on its standard input and the facts for filters in its environment. No shell.

use super::Delivery;
use crate::domain::action;
use crate::domain::time::Span;
use crate::edge::actuators::command;
use crate::edge::notify::message::Message;

pub struct Exec {
    pub exec: action::Exec,
    pub timeout: Span,
}

impl Exec {
    pub async fn send(&self, message: &Message) -> Result<(), Delivery> {
        let mut exec = self.exec.clone();
        let page = &message.page;
        for (name, value) in [
            ("FLIPBACK_KEY", super::webhook::id(message)),
            ("FLIPBACK_KIND", page.kind.to_owned()),
            ("FLIPBACK_SEVERITY", page.severity.to_owned()),
            ("FLIPBACK_SERVICE", page.service.clone()),
            ("FLIPBACK_SWITCH", page.switch.clone()),
        ] {
            exec.env.insert(name.to_owned(), value);
        }
        match command::run_with(&exec, Some(&message.whole()), self.timeout).await {
            Ok(finished) if finished.status.success() => Ok(()),
            Ok(finished) => Err(Delivery::Later(format!("{}: {}", self.exec, finished.status))),
            Err(error) => Err(Delivery::Later(error)),
        }
    }
}
