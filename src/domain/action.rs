//! What a step does, and how its effect is read back. Every action is a level ("the traffic is on blue"), never a
//! toggle: done twice it is done once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::switch::Slot;
use super::time::Span;

/// Names and what stands for them in one attempt: `old`, `new`, `service`, `old_word`, `new_word`.
pub type Variables = BTreeMap<&'static str, String>;

/// All variables that a step may name.
pub const VARIABLES: [&str; 5] = ["old", "new", "service", "old_word", "new_word"];

/// What a step does. Where traffic is moved, it goes to the attempt's target slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Exec(Exec),
    /// The same command as a unit of its own, outside the daemon's sandbox.
    Unit(Exec),
    Haproxy(Haproxy),
    File(FileSet),
    Nginx(Nginx),
    Http(HttpCall),
}

impl Action {
    /// Puts the values of one attempt into the places of the variables.
    pub fn resolve(&self, vars: &Variables) -> Action {
        match self {
            Action::Exec(exec) => Action::Exec(exec.resolve(vars)),
            Action::Unit(exec) => Action::Unit(exec.resolve(vars)),
            Action::Http(call) => Action::Http(call.resolve(vars)),
            // The target slot says which of their words counts.
            Action::Haproxy(_) | Action::File(_) | Action::Nginx(_) => self.clone(),
        }
    }

    /// What it touches, by default: steps that share it run one at a time.
    pub fn lock(&self) -> String {
        match self {
            Action::Exec(exec) | Action::Unit(exec) => exec.argv.first().cloned().unwrap_or_default(),
            Action::Haproxy(haproxy) => haproxy.address.to_string(),
            Action::File(set) => set.path.display().to_string(),
            // Two services in one nginx are reloaded together.
            Action::Nginx(nginx) => nginx.reload.argv.join(" "),
            Action::Http(call) => call.target.url.clone(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Exec(exec) => exec.fmt(f),
            Action::Unit(exec) => write!(f, "{exec} (as a unit of its own)"),
            Action::Haproxy(haproxy) => write!(f, "haproxy {} backend {}", haproxy.address, haproxy.backend),
            Action::File(set) => write!(f, "write {}", set.path.display()),
            Action::Nginx(nginx) => write!(f, "nginx {}", nginx.file.path.display()),
            Action::Http(call) => write!(f, "{} {}", call.method, call.target.url),
        }
    }
}

/// A command: absolute program, arguments; never a shell. A variable counts only as a whole element.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exec {
    pub argv: Vec<String>,
    /// What it gets besides PATH and FLIPBACK_…: from the configuration, never from an event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl Exec {
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Exec {
        Exec { argv: argv.into_iter().map(Into::into).collect(), env: BTreeMap::new() }
    }

    /// Puts values in the place of whole elements that are variables.
    pub fn resolve(&self, vars: &Variables) -> Exec {
        let put = |element: &String| match element.strip_prefix('$').and_then(|name| vars.get(name)) {
            Some(value) => value.clone(),
            None => element.clone(),
        };
        Exec { argv: self.argv.iter().map(put).collect(), env: self.env.clone() }
    }
}

impl fmt::Display for Exec {
    /// For people: elements with blanks or quotes are quoted. Not meant for a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, element) in self.argv.iter().enumerate() {
            let blank = if i == 0 { "" } else { " " };
            if element.is_empty() || element.chars().any(|c| c.is_whitespace() || c == '"' || c.is_control()) {
                write!(f, "{blank}{element:?}")?;
            } else {
                write!(f, "{blank}{element}")?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketAddress {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketAddress::Unix(path) => write!(f, "{}", path.display()),
            SocketAddress::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Servers of one HAProxy backend, by slot, over the runtime API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Haproxy {
    pub address: SocketAddress,
    pub backend: String,
    pub servers: BTreeMap<Slot, Vec<String>>,
    /// What becomes of the servers of every other slot.
    pub others: TakenOut,
    /// Connections that still hold on to the others after this long are ended.
    pub end_sessions_after: Option<Span>,
    /// Where the servers' state is written afterwards, for a HAProxy that loads it when it starts.
    pub state_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakenOut {
    /// State `maint`: no request at all, sticky ones included.
    Maint,
    /// State `drain`: sticky sessions may stay.
    Drain,
    /// Weight 0.
    Weight,
}

/// A file, or a link, that says where traffic (or a flag) is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSet {
    pub path: PathBuf,
    /// What it holds (or points to) for each slot.
    pub holds: BTreeMap<Slot, String>,
    pub link: bool,
}

/// nginx: the file is rewritten, tested, reloaded, and put back where the new state is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nginx {
    pub file: FileSet,
    /// `nginx -t`; `None` where the reload itself refuses a bad configuration.
    pub test: Option<Exec>,
    pub reload: Exec,
    /// What is served: asked after the reload, and the step's probe where it has no other.
    pub served: HttpLook,
    /// How long the reload may take to be served.
    pub live_within: Span,
    pub words: BTreeMap<Slot, String>,
}

/// Whom an HTTP request goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTarget {
    pub url: String,
    pub headers: BTreeMap<String, String>,
    pub secret: Option<SecretHeader>,
    /// Some want two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_secrets: Vec<SecretHeader>,
    /// The one authority that this server's certificate must come from.
    pub ca_file: Option<PathBuf>,
}

/// A header whose value is the first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretHeader {
    pub name: String,
    pub prefix: String,
    pub file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCall {
    pub method: String,
    pub target: HttpTarget,
    pub body: Option<String>,
    /// Good answers; empty: every 2xx.
    pub expect_status: Vec<u16>,
}

/// GET, and what of the answer names the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpLook {
    pub target: HttpTarget,
    pub shows: Shows,
    /// JSON pointers and what must stand there, or the answer shows nothing.
    pub require: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shows {
    /// The whole body, one line.
    Body,
    Header(String),
    /// RFC 6901.
    Pointer(String),
}

impl HttpTarget {
    fn resolve(&self, vars: &Variables) -> HttpTarget {
        HttpTarget {
            url: fill(&self.url, vars, for_url),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), fill(value, vars, str::to_owned)))
                .collect(),
            ..self.clone()
        }
    }
}

impl HttpCall {
    pub fn resolve(&self, vars: &Variables) -> HttpCall {
        let json =
            self.target.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("content-type") && v.contains("json"));
        let escape = if json { for_json } else { str::to_owned };
        HttpCall {
            target: self.target.resolve(vars),
            body: self.body.as_ref().map(|body| fill(body, vars, escape)),
            ..self.clone()
        }
    }
}

/// How a probe reads the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Prints one line.
    Exec(Exec),
    /// The slot whose servers take the requests.
    Haproxy(Haproxy),
    /// The slot for which the file holds what it holds; otherwise its first line.
    File(FileSet),
    Http(HttpLook),
}

impl Look {
    pub fn resolve(&self, vars: &Variables) -> Look {
        match self {
            Look::Exec(exec) => Look::Exec(exec.resolve(vars)),
            Look::Http(look) => Look::Http(HttpLook { target: look.target.resolve(vars), ..look.clone() }),
            Look::Haproxy(_) | Look::File(_) => self.clone(),
        }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Look::Exec(exec) => exec.fmt(f),
            Look::Haproxy(haproxy) => write!(f, "haproxy {} backend {}", haproxy.address, haproxy.backend),
            Look::File(set) => write!(f, "{}", set.path.display()),
            Look::Http(look) => write!(f, "GET {}", look.target.url),
        }
    }
}

/// The variables that a text names, in their order; `Err`: a `$` that begins none. `$$` is a dollar.
pub fn variables_of(text: &str) -> Result<Vec<&str>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            continue;
        }
        let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(after.len());
        if end == 0 {
            return Err("has a $ that names nothing; a dollar itself is $$".into());
        }
        found.push(&after[..end]);
        rest = &after[end..];
    }
    Ok(found)
}

/// The text with each variable's value, escaped for where it stands. A name that is not known stays.
pub fn fill(text: &str, vars: &Variables, escape: fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(after.len());
        match vars.get(&after[..end]) {
            Some(value) => out.push_str(&escape(value)),
            None => {
                out.push('$');
                out.push_str(&after[..end]);
            }
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// Everything but unreserved characters in percent form: a value is one part of a path, whatever it holds.
fn for_url(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The inside of a JSON string.
fn for_json(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> Variables {
        Variables::from([("old", "blue".into()), ("new", "green".into()), ("old_word", "a \"b\"/..".into())])
    }

    #[test]
    fn variables_stand_for_their_values_escaped_for_the_place() {
        assert_eq!(fill("to $old, $$5, $other", &vars(), str::to_owned), "to blue, $5, $other");
        assert_eq!(fill("/v1/$old_word/x", &vars(), for_url), "/v1/a%20%22b%22%2F../x");
        assert_eq!(fill("{\"to\":\"$old_word\"}", &vars(), for_json), "{\"to\":\"a \\\"b\\\"/..\"}");
        assert_eq!(variables_of("$old$new and $$x $service.").unwrap(), ["old", "new", "service"]);
        assert!(variables_of("costs $ 5").is_err());
    }

    #[test]
    fn in_a_command_a_variable_is_a_whole_element() {
        let exec = Exec::new(["/bin/switch", "$old", "--to=$old", "$unknown"]).resolve(&vars());
        assert_eq!(exec.argv, ["/bin/switch", "blue", "--to=$old", "$unknown"]);
    }

    #[test]
    fn a_json_body_cannot_be_broken_out_of() {
        let call = HttpCall {
            method: "PUT".into(),
            target: HttpTarget {
                more_secrets: Vec::new(),
                url: "http://h/$service/$old".into(),
                headers: [("Content-Type".into(), "application/json".into())].into(),
                secret: None,
                ca_file: None,
            },
            body: Some("{\"slot\":\"$old_word\"}".into()),
            expect_status: vec![],
        };
        let done = call.resolve(&vars());
        assert_eq!(done.target.url, "http://h/$service/blue");
        assert_eq!(done.body.unwrap(), "{\"slot\":\"a \\\"b\\\"/..\"}");
    }
}
