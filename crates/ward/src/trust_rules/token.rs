//! Tokens of workloads: JSON Web Tokens of issuers that trust rules name.
//!
//! The three common shapes differ little: GitHub Actions (`typ: JWT`), projected service account tokens of Kubernetes (no
//! `typ`), and JWT-SVIDs of SPIFFE (`typ` is `JWT` or `JOSE`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use ward_db::Timestamp;

use crate::config::issuers::TokenAlgorithm;
use crate::identity::WorkloadToken;
use crate::identity::issuers::Key;
use crate::identity::token::{LEEWAY, Parts, algorithm, judge_times, time};

/// The longest life of a token. One that lives longer is a static key in another form.
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// The longest issuer, audience and subject, bytes. A SPIFFE ID has at most 2,048 (SPIFFE-ID, section 2.3).
const LONGEST_TEXT: usize = 2048;
/// The kept length of `jti`, characters.
const LONGEST_ID: usize = 256;

/// A token whose times and form are right, but whose signature is not verified.
pub struct Unverified<'a> {
    parts: Parts<'a>,
    algorithm: TokenAlgorithm,
    pub token: Arc<WorkloadToken>,
}

impl<'a> Unverified<'a> {
    /// Reads a bearer. The error is for the log; clients do not get it.
    pub fn read(text: &'a str, now: Timestamp) -> Result<Self, &'static str> {
        let mut parts = Parts::read(text)?;
        let algorithm = algorithm(&parts.header, &TokenAlgorithm::ALL).ok_or("algorithm")?;
        // RFC 7515, section 4.1.11: an extension that must be understood and is not makes the token invalid.
        if parts.header.crit.is_some() {
            return Err("crit");
        }
        if !parts.header.typ.as_deref().is_none_or(is_access) {
            return Err("typ");
        }
        // RFC 7800: such a token is valid only with a proof of its key.
        if parts.claims.contains_key("cnf") {
            return Err("bound to a key");
        }
        let expires_at = judge_times(&parts.claims, now).map_err(|_| "times")?;
        judge_life(&parts.claims, expires_at, now)?;
        let claims = std::mem::take(&mut parts.claims);
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| is_text(text));
        let issuer: Arc<str> = text("iss").ok_or("issuer")?.into();
        let audience = audience(&claims).ok_or("audience")?.to_owned();
        let subject = text("sub").ok_or("subject")?.to_owned();
        let id = claims.get("jti").and_then(Value::as_str).filter(|id| !id.contains(char::is_control));
        let id = id.map(|id| id.chars().take(LONGEST_ID).collect());
        let token = Arc::new(WorkloadToken { issuer, audience, subject, id, expires_at, claims });
        Ok(Self { parts, algorithm, token })
    }

    /// Whether one of these keys of its issuer made the signature.
    pub fn signed_by(&self, keys: &[Key]) -> bool {
        self.parts.signed_by(keys, self.algorithm)
    }
}

fn is_text(text: &str) -> bool {
    (1..=LONGEST_TEXT).contains(&text.len()) && !text.contains(char::is_control)
}

/// JWT-SVID, section 2.3, and RFC 9068, section 4.
fn is_access(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    ["jwt", "jose", "at+jwt"].contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

/// The audience, if the token has a single one. The other audiences of a token could present it to Ward.
fn audience(claims: &Map<String, Value>) -> Option<&str> {
    let only = match claims.get("aud")? {
        Value::Array(several) => match several.as_slice() {
            [one] => one,
            _ => return None,
        },
        one => one,
    };
    only.as_str().filter(|text| is_text(text))
}

/// Checks `iat` (RFC 7519, section 4.1.6) and the length of the token's life. A token without `iat` is measured from now.
fn judge_life(
    claims: &Map<String, Value>,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), &'static str> {
    let issued_at = match claims.get("iat").map(time) {
        None => now,
        Some(None) => return Err("iat"),
        Some(Some(at)) if now.saturating_add(LEEWAY) < at => return Err("issued in the future"),
        Some(Some(at)) => at,
    };
    if issued_at.saturating_add(LONGEST_LIFE + LEEWAY) < expires_at {
        return Err("lives too long");
    }
    Ok(())
}
