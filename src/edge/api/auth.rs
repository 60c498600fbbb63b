//! Who asks, and what they may: tokens on TCP, the kernel's word on the control socket.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::tokens::Tokens;
use crate::config::settings::{ApiSettings, LocalRule, Whom};
use crate::domain::access::{Grant, Reach};
use crate::domain::switch::ServiceName;
use crate::domain::time::Timestamp;
use crate::edge::secret::first_line;

/// A token's digest; the token itself is not kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The first line of a file. A short token can be guessed: 16 characters at least.
    pub fn from_file(path: &Path) -> Result<Token, String> {
        let token = first_line(path)?;
        if token.len() < 16 {
            return Err(format!(
                "{}: the token must have at least 16 characters, like the output of: openssl rand -hex 32",
                path.display()
            ));
        }
        Ok(Token(Sha256::digest(token.as_bytes()).into()))
    }

    /// Compares digests in constant time.
    fn is(&self, given: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        digest.ct_eq(&self.0).into()
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// On the control socket, with what the kernel vouches for.
    Local { uid: u32, gid: u32 },
    /// Over TCP.
    Remote,
}

/// Who asks, as it is recorded, and what they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `uid 1000`, `the API token`, `token ci`.
    pub who: String,
    /// The same as the source of an announcement.
    pub source: String,
    pub grant: Grant,
    /// The token's id, where it is one of flipback's own.
    pub token: Option<String>,
}

impl Caller {
    pub fn reaches(&self, service: &ServiceName) -> bool {
        self.grant.reach.holds(service)
    }

    pub fn over_all(&self) -> bool {
        self.grant.reach == Reach::All
    }
}

/// Everything that decides it.
pub struct Authority {
    file_token: Option<Token>,
    pub tokens: Tokens,
    rules: Vec<LocalRule>,
    others: Grant,
    passwd: PathBuf,
    group: PathBuf,
    own_uid: u32,
}

impl Authority {
    pub fn new(api: &ApiSettings, state_dir: &Path) -> Result<Authority, String> {
        let file_token = match (&api.listen, &api.token_file) {
            (Some(_), Some(file)) => Some(Token::from_file(file)?),
            _ => None,
        };
        Ok(Authority {
            file_token,
            tokens: Tokens::open(state_dir)?,
            rules: api.local.clone(),
            others: Grant { role: api.socket_role, reach: Reach::All },
            passwd: "/etc/passwd".into(),
            group: "/etc/group".into(),
            own_uid: rustix::process::geteuid().as_raw(),
        })
    }

    /// By a token, wherever it was typed in.
    pub fn by_token(&self, given: &str, now: Timestamp) -> Option<Caller> {
        let given = given.trim();
        if self.file_token.as_ref().is_some_and(|token| token.is(given)) {
            let (who, source) = ("the API token".into(), "http".into());
            return Some(Caller { who, source, grant: Grant::EVERYTHING, token: None });
        }
        let kept = self.tokens.find(given, now)?;
        let who = format!("token {}", kept.name);
        Some(Caller { source: format!("http ({who})"), who, grant: kept.grant(), token: Some(kept.id) })
    }

    /// By the header of a request over TCP.
    pub fn by_header(&self, authorization: Option<&str>, now: Timestamp) -> Option<Caller> {
        self.by_token(authorization?.strip_prefix("Bearer ")?, now)
    }

    /// On the control socket: root and the daemon's own user may everything, then the first rule that fits, then what
    /// all others of the group may, whom the socket's mode let in.
    pub fn by_peer(&self, uid: u32, gid: u32) -> Caller {
        let who = format!("uid {uid}");
        let grant = if uid == 0 || uid == self.own_uid {
            Grant::EVERYTHING
        } else {
            let rule = self.rules.iter().find(|rule| self.fits(&rule.whom, uid, gid));
            rule.map_or_else(|| self.others.clone(), |rule| rule.grant.clone())
        };
        Caller { source: format!("socket ({who})"), who, grant, token: None }
    }

    fn fits(&self, whom: &Whom, uid: u32, gid: u32) -> bool {
        let number = |text: &str| text.parse::<u32>().ok();
        match whom {
            Whom::User(name) => {
                number(name) == Some(uid) || name_of(&self.passwd, uid).is_some_and(|found| found == *name)
            }
            Whom::Group(name) => {
                number(name) == Some(gid) || is_member(&self.group, name, gid, name_of(&self.passwd, uid).as_deref())
            }
        }
    }
}

/// The user's name in the local files: rules for users of a directory service are written with their numbers.
fn name_of(passwd: &Path, uid: u32) -> Option<String> {
    let text = std::fs::read_to_string(passwd).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Whether the group is the user's own, or lists the user.
fn is_member(group: &Path, wanted: &str, gid: u32, user: Option<&str>) -> bool {
    let text = std::fs::read_to_string(group).unwrap_or_default();
    text.lines().any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, number, members] = fields[..] else { return false };
        name == wanted
            && (number.parse() == Ok(gid) || user.is_some_and(|user| members.split(',').any(|m| m.trim() == user)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::Role;

    #[test]
    fn the_first_rule_that_fits_decides_on_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let rule = |whom, role| LocalRule { whom, grant: Grant { role, reach: Reach::All } };
        std::fs::write(
            dir.path().join("passwd"),
            "root:x:0:0::/:/bin/sh\njenkins:x:1001:1001::/:/bin/sh\nann:x:1002:1002::/:\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("group"), "root:x:0:\noncall:x:50:ann,bob\nci:x:1001:\n").unwrap();
        let authority = Authority {
            file_token: None,
            tokens: Tokens::open(dir.path()).unwrap(),
            rules: vec![
                rule(Whom::User("jenkins".into()), Role::Report),
                rule(Whom::Group("oncall".into()), Role::Operate),
                rule(Whom::User("1002".into()), Role::Admin),
            ],
            others: Grant { role: Role::Read, reach: Reach::All },
            passwd: dir.path().join("passwd"),
            group: dir.path().join("group"),
            own_uid: 997,
        };
        let role = |uid, gid| authority.by_peer(uid, gid).grant.role;
        assert_eq!(role(0, 0), Role::Admin);
        assert_eq!(role(997, 997), Role::Admin, "the daemon's own user");
        assert_eq!(role(1001, 1001), Role::Report);
        assert_eq!(role(1002, 1002), Role::Operate, "a member; the first rule that fits, not the widest");
        assert_eq!(role(4000, 50), Role::Operate, "its own group");
        assert_eq!(role(4000, 4000), Role::Read);
        assert_eq!(role(u32::MAX, u32::MAX), Role::Read, "the kernel does not say who");
    }
}
