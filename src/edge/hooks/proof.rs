//! Who holds the secret: HMAC-SHA256 over the raw bytes, or the secret itself in a header. Compared in constant
//! time, and never told what would have been right.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Delivery;
use crate::edge::secret::first_line;

/// Shorter secrets can be guessed.
const SECRET_MIN: usize = 16;

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
}

pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The first line of a file; `packed`: written as Standard Webhooks do, `whsec_` and base64.
    pub fn from_file(path: &Path, packed: bool) -> Result<Secret, String> {
        let line = first_line(path)?;
        let bytes = match line.strip_prefix("whsec_").filter(|_| packed) {
            Some(text) => BASE64_STANDARD
                .decode(text)
                .map_err(|_| format!("{}: what follows whsec_ is not base64", path.display()))?,
            None => line.into_bytes(),
        };
        if bytes.len() < SECRET_MIN {
            return Err(format!(
                "{}: the secret must have at least {SECRET_MIN} characters, like the output of: openssl rand -hex 32",
                path.display()
            ));
        }
        Ok(Secret(bytes))
    }

    /// Whether `signature` is this secret's over the parts, one after the other.
    pub fn signed(&self, parts: &[&[u8]], signature: &str, encoding: Encoding) -> bool {
        let decoded = match encoding {
            Encoding::Hex => hex::decode(signature).ok(),
            Encoding::Base64 => BASE64_STANDARD.decode(signature).ok(),
        };
        let (Some(decoded), Ok(mut mac)) = (decoded, Hmac::<Sha256>::new_from_slice(&self.0)) else { return false };
        parts.iter().for_each(|part| mac.update(part));
        mac.verify_slice(&decoded).is_ok()
    }

    /// Whether a header brought the secret itself. Digests are compared, so that not even a length is told.
    pub fn is(&self, given: &str) -> bool {
        let digest = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        digest(given.as_bytes()).ct_eq(&digest(&self.0)).into()
    }
}

/// A signature over the whole body, in a header.
pub fn body_signed(
    delivery: &Delivery<'_>,
    secret: &Secret,
    header: &str,
    prefix: &str,
    encoding: Encoding,
) -> Result<(), String> {
    let Some(given) = delivery.header(header) else { return Err(format!("there is no {header} header")) };
    let given = given.strip_prefix(prefix).ok_or_else(|| format!("{header} does not begin with {prefix}"))?;
    if secret.signed(&[delivery.body], given, encoding) {
        Ok(())
    } else {
        Err(format!("{header} is not the signature of this body by the secret of this webhook"))
    }
}

/// The secret in a header of its own, or as a bearer token.
pub fn token(delivery: &Delivery<'_>, secret: &Secret, headers: &[&str]) -> Result<(), String> {
    let named = || headers.join(" or ");
    let given = headers.iter().find_map(|header| delivery.header(header));
    let given = given.ok_or_else(|| format!("there is no {} header", named()))?;
    if secret.is(given.strip_prefix("Bearer ").unwrap_or(given).trim()) {
        Ok(())
    } else {
        Err(format!("{} is not the secret of this webhook", named()))
    }
}
