//! What is wrong with a configuration: the place, the key, the reason and the mend.

use std::fmt;
use std::ops::Range;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 where the file as a whole is meant.
    pub line: usize,
    pub column: usize,
    /// The key's full path: `service[0].limits.ratio`.
    pub path: String,
    pub message: String,
    pub help: Option<String>,
    /// The source line and where in it (characters), for the excerpt.
    excerpt: Option<(String, usize, usize)>,
}

/// All problems of a load, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

/// A source line is shown up to here: a minified or hostile file stays readable.
const EXCERPT_MAX: usize = 160;

impl Problem {
    pub fn at(
        file: &str,
        text: &str,
        span: Range<usize>,
        path: String,
        message: String,
        help: Option<String>,
    ) -> Problem {
        let start = floor_char(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let line_text = text[line_start..line_end].trim_end_matches('\r');
        let column = text[line_start..start].chars().count();
        let length = text[start..floor_char(text, span.end.clamp(start, line_end))].chars().count().max(1);
        let shown: String = line_text.chars().take(EXCERPT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Problem {
            file: file.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: column + 1,
            path,
            message,
            help,
            excerpt: Some((shown, column, length)),
        }
    }

    pub fn whole(file: &str, message: String, help: Option<String>) -> Problem {
        Problem { file: file.to_owned(), line: 0, column: 0, path: String::new(), message, help, excerpt: None }
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        writeln!(f, ": {}", self.message)?;
        if let Some((line, column, length)) = &self.excerpt
            && *column < EXCERPT_MAX
        {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            let carets = "^".repeat((*length).min(EXCERPT_MAX - column));
            writeln!(f, "  {number} | {line}\n  {margin} | {}{carets}", " ".repeat(*column))?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "  help: {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        let s = if self.0.len() == 1 { "" } else { "s" };
        writeln!(f, "\n{} problem{s}; nothing was changed", self.0.len())
    }
}

impl std::error::Error for Problems {}
