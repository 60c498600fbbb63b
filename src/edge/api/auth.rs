//! Who may ask: bearer tokens on TCP, file permissions and peer credentials on the socket.

use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

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
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
        let digest: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
        digest.ct_eq(&self.0).into()
    }
}

/// Who sent a request, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// On the control socket, with the uid that the kernel vouches for.
    Local { uid: u32 },
    /// Over TCP, with the token.
    Bearer,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Local { uid } => write!(f, "uid {uid}"),
            Peer::Bearer => f.write_str("the API token"),
        }
    }
}
