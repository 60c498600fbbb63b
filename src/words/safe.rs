//! Text from outside, made harmless: bounded, one line, no control characters.

/// Output of a step that a message carries: the end of it says what went wrong.
const OUTPUT_LINES: usize = 20;
const OUTPUT_CHARS: usize = 2048;

/// The end of an output, harmless: no control characters, no escape sequences, few lines.
pub fn tail(output: &str) -> String {
    let clean = clean(output);
    let lines: Vec<&str> = clean.lines().collect();
    let kept = lines[lines.len().saturating_sub(OUTPUT_LINES)..].join("\n");
    let skip = kept.chars().count().saturating_sub(OUTPUT_CHARS);
    kept.chars().skip(skip).collect()
}

/// The whole of it, likewise.
pub fn clean(output: &str) -> String {
    let mut clean = String::new();
    let mut escape = false;
    for c in output.chars() {
        match c {
            '\u{1b}' => escape = true,
            c if escape => escape = !(c.is_ascii_alphabetic() || c == '\n'),
            '\n' => clean.push('\n'),
            '\t' => clean.push(' '),
            c if unruly(c) => {}
            c => clean.push(c),
        }
    }
    let lines: Vec<&str> = clean.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    lines.join("\n")
}

/// One line of bounded length without control characters.
pub fn tame(text: &str, max: usize) -> String {
    let line: String = text.chars().map(|c| if unruly(c) { ' ' } else { c }).collect();
    if line.chars().count() > max { line.chars().take(max - 1).chain(['…']).collect() } else { line }
}

/// Control characters, and those that turn the order of letters round.
pub fn unruly(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text as one part of a path.
pub fn path_part(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_output_is_harmless() {
        let output = format!("{}\u{1b}[31mred\u{1b}[0m\0\r\n<script>\n", "line\n".repeat(500));
        let shown = tail(&output);
        assert!(
            shown.lines().count() <= OUTPUT_LINES && shown.contains("red") && !shown.contains(['\u{1b}', '\0', '\r'])
        );
    }
}
