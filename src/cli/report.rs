//! `flipback report`: a post-mortem's draft in one file.

use super::show::of_watch;
use super::wait::now;
use super::{Global, Output, exit, print, print_json};
use crate::face::html::Html;
use crate::face::report::Report;

pub fn run(global: &Global, id: &str) -> i32 {
    let account = match of_watch(global, id, "/account", |reader, id| reader.account(id)) {
        Ok(account) => account,
        Err(code) => return code,
    };
    if global.output == Output::Json {
        print_json(&account);
        return exit::OK;
    }
    let report = Report::new(&account, now());
    let made = Html::new().and_then(|html| match global.output {
        Output::Html => html.report_html(&report),
        Output::Table | Output::Md | Output::Json => html.report_md(&report),
    });
    match made {
        Ok(text) => {
            print(&text);
            exit::OK
        }
        Err(error) => {
            eprintln!("flipback: the report was not made: {error}");
            exit::FAILED
        }
    }
}
