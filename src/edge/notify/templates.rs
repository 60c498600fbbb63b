//! The texts that pages are poured into: ours, or the operator's in their place.

use std::path::Path;
use std::sync::Arc;

use minijinja::Environment;

use super::page::Page;
use crate::words::template::environment;

/// The names that a template directory may hold.
pub const NAMES: [&str; 3] = ["subject.txt", "notice.txt", "notice.html"];

const OURS: [(&str, &str); 3] = [
    ("subject.txt", "{{ subject }}"),
    ("notice.txt", include_str!("templates/notice.txt")),
    ("notice.html", include_str!("templates/notice.html")),
];

/// A template of people; ours has a tenth of it.
const SOURCE_MAX: u64 = 256 * 1024;

/// One rendering; ours takes some thousands. A loop without end is no mail.
const FUEL: u64 = 2_000_000;

#[derive(Debug, Clone)]
pub struct Templates {
    ours: Arc<Environment<'static>>,
    /// The operator's, where there are any.
    theirs: Option<Arc<Environment<'static>>>,
}

impl Templates {
    pub fn ours() -> Templates {
        let mut env = environment(FUEL);
        for (name, source) in OURS {
            if let Err(error) = env.add_template(name, source) {
                tracing::error!(%error, name, "a template does not parse");
            }
        }
        Templates { ours: Arc::new(env), theirs: None }
    }

    /// With what a directory has in their place; every problem is an error.
    pub fn with(dir: &Path) -> Result<Templates, String> {
        let mut env = environment(FUEL);
        let mut found = 0;
        let listed = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        for entry in listed {
            let path = entry.map_err(|error| format!("{}: {error}", dir.display()))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(name) = NAMES.into_iter().find(|known| *known == name) else {
                if name.ends_with(".html") || name.ends_with(".txt") {
                    return Err(format!("{}: templates are {}", path.display(), NAMES.join(", ")));
                }
                continue;
            };
            let size = std::fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.len();
            if size > SOURCE_MAX {
                return Err(format!("{}: is larger than {SOURCE_MAX} bytes", path.display()));
            }
            let source = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            env.add_template_owned(name, source).map_err(|error| format!("{}: {error:#}", path.display()))?;
            found += 1;
        }
        if found == 0 {
            return Err(format!("{}: has none of {}", dir.display(), NAMES.join(", ")));
        }
        Ok(Templates { theirs: Some(Arc::new(env)), ..Templates::ours() })
    }

    /// What a page comes to; an operator's template that cannot take it is an error.
    pub fn try_fill(&self, name: &str, page: &Page) -> Result<String, String> {
        let theirs = self.theirs.as_ref().filter(|env| env.get_template(name).is_ok());
        fill(theirs.unwrap_or(&self.ours), name, page)
    }

    /// Never fails: where an operator's template does not render, ours does, and the log says so.
    pub fn fill(&self, name: &str, page: &Page) -> String {
        self.try_fill(name, page)
            .or_else(|error| {
                tracing::error!(%error, name, "a template does not render; the built-in one is taken");
                fill(&self.ours, name, page)
            })
            .unwrap_or_else(|error| {
                tracing::error!(%error, name, "a built-in template does not render");
                if name.ends_with(".html") { String::new() } else { plain(page) }
            })
    }
}

fn fill(env: &Environment<'static>, name: &str, page: &Page) -> Result<String, String> {
    let template = env.get_template(name).map_err(|error| format!("{name}: {error:#}"))?;
    template.render(minijinja::Value::from(minijinja::value::Serde(page))).map_err(|error| format!("{name}: {error:#}"))
}

fn plain(page: &Page) -> String {
    let mut lines = vec![page.subject.clone(), String::new(), page.headline.clone(), String::new()];
    lines.extend(page.answers.iter().map(|(q, a)| format!("{q}: {a}")));
    lines.extend(page.facts.iter().map(|(q, a)| format!("{q}: {a}")));
    lines.push(format!("Next: {}", page.command));
    lines.join("\n")
}
