//! One letter made ready for channels: its page, filled templates, pictures, and what was told before.

use super::others;
use super::page::{Link, Page, ShownQuery, page};
use super::templates::Templates;
use crate::domain::letter::Letter;
use crate::domain::notice::{NoticeReason, Standing};
use crate::domain::time::Timestamp;

/// A picture that goes with a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub cid: String,
    pub png: Vec<u8>,
}

/// An earlier notice of the same switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub n: u32,
    pub reason: NoticeReason,
    pub at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub letter: Letter,
    /// 0, or which reminder it is.
    pub nth: u32,
    pub page: Page,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub pictures: Vec<Picture>,
    pub earlier: Vec<Told>,
}

/// What goes into a message beside the letter itself.
#[derive(Debug, Clone, Default)]
pub struct Enclosed {
    pub queries: Vec<ShownQuery>,
    pub links: Vec<Link>,
    pub charts: Vec<(super::page::ChartRef, Option<Vec<u8>>)>,
    pub earlier: Vec<Told>,
    /// Nothing happened: somebody tries a receiver.
    pub test: bool,
}

impl Message {
    pub fn new(letter: &Letter, nth: u32, enclosed: Enclosed, templates: &Templates, host: &str) -> Message {
        let Enclosed { queries, links, charts, earlier, test } = enclosed;
        let mut page = match letter {
            Letter::Notice(notice) => page(notice, &queries, &links, host),
            Letter::Undeliverable(u) => others::undeliverable(u, &links, host),
            Letter::Digest(digest) => others::digest(digest, &links, host),
        };
        if nth > 0 {
            page.subject = page.subject.replacen("[flipback] ", "[flipback] STILL: ", 1);
            page.footer = format!("{}; reminder {nth}", page.footer);
        }
        if test {
            page.subject = page.subject.replacen("[flipback] ", "[flipback] TEST: ", 1);
            page.headline = format!("This is a test, and nothing happened. {}", page.headline);
        }
        let mut pictures = Vec::new();
        for (chart, png) in charts {
            pictures.extend(png.map(|png| Picture { cid: chart.cid.clone(), png }));
            page.charts.push(chart);
        }
        // A subject is one line, whatever an operator's template makes of it.
        let subject = crate::words::safe::tame(templates.fill("subject.txt", &page).trim(), 200);
        page.subject.clone_from(&subject);
        let (text, html) = (templates.fill("notice.txt", &page), templates.fill("notice.html", &page));
        Message { letter: letter.clone(), nth, page, subject, text, html, pictures, earlier }
    }

    /// Subject and text: what a program reads.
    pub fn whole(&self) -> String {
        format!("{}\n\n{}", self.subject, self.text)
    }

    /// Told before, and not settled since.
    pub fn standing_before(&self) -> impl Iterator<Item = &Told> {
        let settled = self.earlier.iter().rposition(|told| told.reason.standing() == Standing::Settles);
        let from = settled.map_or(0, |at| at + 1);
        self.earlier[from..].iter().filter(|told| told.reason.standing() == Standing::Stands)
    }

    /// What it means for whoever was woken. "Sees again" settles blindness and nothing else.
    pub fn standing(&self) -> Standing {
        let Letter::Notice(notice) = &self.letter else {
            return match self.letter {
                Letter::Undeliverable(_) => Standing::Stands,
                Letter::Notice(_) | Letter::Digest(_) => Standing::Tells,
            };
        };
        match notice.reason {
            NoticeReason::SeesAgain if self.standing_before().any(|told| told.reason != NoticeReason::Blind) => {
                Standing::Tells
            }
            reason => reason.standing(),
        }
    }

    /// The same for all messages about one trouble: the switch, or the way back of a service.
    pub fn trouble(&self) -> String {
        match &self.letter {
            Letter::Notice(notice) if notice.watch.is_drill() => format!("drill/{}", notice.watch.switch.service),
            Letter::Notice(notice) => notice.key.switch.to_string(),
            // It is over when the trouble is over that it was about.
            Letter::Undeliverable(u) => u.of.key.switch.to_string(),
            Letter::Digest(_) => self.letter.key().0,
        }
    }
}
