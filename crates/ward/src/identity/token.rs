//! Access tokens: JSON Web Tokens (RFC 7519) of the configured issuers, judged without a query.
//!
//! A token is a machine's when the issuer's `machine_claim` has its `machine_value`. Where none is configured, it is a
//! machine's when its subject is its own client (`client_id`, `azp`, `cid` or `appid`; RFC 9068, section 2.2), or when it
//! says so in the way of a common provider (`gty: client-credentials`, `idtyp: app`, a `preferred_username` that begins
//! with `service-account-`). Every other token is a person's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use ward_db::Timestamp;

use super::PrincipalKind;
use super::issuers::{Issuer, Issuers, Key, KeySet, Unavailable};
use crate::config::issuers::{IssuerConfig, TokenAlgorithm};
use crate::ids::PrincipalId;

/// By how much an issuer's clock may differ from Ward's.
const LEEWAY: Duration = Duration::from_secs(30);
/// The longest token that is looked at, bytes.
const LONGEST: usize = 16 * 1024;
/// The longest subject, bytes (`OpenID` Connect Core 1.0, section 2: 255 ASCII characters).
const LONGEST_SUBJECT: usize = 255;
/// How much of a name for people is kept, characters.
const LONGEST_NAME: usize = 200;

/// A token that holds: signed by its issuer, for Ward, now.
pub struct Verified {
    /// The issuer.
    pub issuer: Arc<Issuer>,
    /// Whom the issuer says it speaks for.
    pub subject: String,
    /// Whether that is a person or a machine.
    pub kind: PrincipalKind,
    /// What that is called, for people.
    pub name: Option<String>,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// The principal that this subject is, or will be once it writes.
    pub principal: PrincipalId,
    /// Its `sub`, whichever claim names the subject.
    sub: Option<String>,
    /// An address that the issuer has verified.
    email: Option<String>,
}

// Written by hand: whom a token speaks for does not belong into a log.
impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl Verified {
    /// What the audit keeps of the subject: enough to compare, and not itself.
    pub fn subject_hash(&self) -> String {
        let hash = Sha256::digest(self.subject.as_bytes());
        hash.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
            text
        })
    }

    /// An address of this person that the issuer has verified, from the token or else from the issuer's userinfo;
    /// `text` is the token. The error: the issuer could not be asked.
    pub async fn verified_email(&self, text: &str) -> Result<Option<String>, Unavailable> {
        if self.email.is_some() {
            return Ok(self.email.clone());
        }
        let told = self.issuer.userinfo(text).await?;
        let claims = told.as_ref().and_then(Value::as_object);
        // OpenID Connect Core 1.0, section 5.3.2: an answer about anybody else must not be used.
        let own = claims
            .filter(|it| self.sub.is_some() && it.get("sub").and_then(Value::as_str) == self.sub.as_deref());
        Ok(own.and_then(verified_email))
    }
}

/// Why a token is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not valid. The reason is for the log; clients are not told.
    Invalid(&'static str),
    /// It might be, but its issuer's keys cannot be had.
    Unavailable(Unavailable),
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

/// The JOSE header (RFC 7515, section 4).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// Whether a bearer has the form of a token of which Ward knows any issuer. Costs next to nothing.
pub fn may_be_one(issuers: &Issuers, text: &str) -> bool {
    issuers.any() && text.len() <= LONGEST && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Judges a bearer that is no API key.
pub async fn verify(issuers: &Issuers, text: &str, now: Timestamp) -> Result<Verified, Refused> {
    use Refused::Invalid;
    if !may_be_one(issuers, text) {
        return Err(Invalid("not a token"));
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(Invalid("not a token"))?;
    let (header, payload) = signed.split_once('.').ok_or(Invalid("not a token"))?;
    let header: Header = decode(header).ok_or(Invalid("no header"))?;
    let claims: Map<String, Value> = decode(payload).ok_or(Invalid("no claims"))?;
    // The issuer before any work: nobody can make Ward fetch from, or compute for, an issuer it was not told of.
    let issuer = claims.get("iss").and_then(Value::as_str).and_then(|iss| issuers.named(iss));
    let issuer = issuer.ok_or(Invalid("unknown issuer"))?;
    let algorithm = algorithm(&header, &issuer.config).ok_or(Invalid("algorithm"))?;
    // What the signature cannot change is judged before it, so that a dead token makes nobody fetch keys.
    let expires_at = judge_times(&claims, now)?;
    judge_use(&header, &claims, &issuer.config)?;

    let keys = issuer.keys().await?;
    if !signed_by(&keys, &header, algorithm, signed, signature) {
        let newer = issuer.newer_keys(&keys).await.ok_or(Invalid("signature"))?;
        if !signed_by(&newer, &header, algorithm, signed, signature) {
            return Err(Invalid("signature"));
        }
    }
    let subject = claims.get(&issuer.config.subject_claim).and_then(Value::as_str);
    let subject =
        subject.filter(|it| (1..=LONGEST_SUBJECT).contains(&it.len()) && !it.contains(char::is_control));
    let subject = subject.ok_or(Invalid("subject"))?.to_owned();
    let name = claims.get(&issuer.config.name_claim).and_then(Value::as_str);
    Ok(Verified {
        kind: kind(&issuer.config, &claims),
        name: name.and_then(name_for_people),
        expires_at,
        principal: principal_of(&issuer.name, &subject),
        sub: claims.get("sub").and_then(Value::as_str).map(str::to_owned),
        email: verified_email(&claims),
        issuer: issuer.clone(),
        subject,
    })
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The algorithm that the header names, if the issuer may use it. `none` and the symmetric ones are none of them.
fn algorithm(header: &Header, config: &IssuerConfig) -> Option<TokenAlgorithm> {
    let named = match header.alg.as_str() {
        "RS256" => TokenAlgorithm::RS256,
        "ES256" => TokenAlgorithm::ES256,
        // The second name is RFC 9864's.
        "EdDSA" | "Ed25519" => TokenAlgorithm::EdDsa,
        _ => return None,
    };
    config.algorithms.contains(&named).then_some(named)
}

/// `exp` and `nbf` (RFC 7519, sections 4.1.4 and 4.1.5). The end is required.
fn judge_times(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, Refused> {
    let time = |value: &Value| {
        // Seconds, with a fraction in some hands. Beyond what a clock can show it is not a time.
        let seconds = value.as_f64().filter(|seconds| (0.0..=253_402_300_799.0).contains(seconds))?;
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        Some(Timestamp::from_micros((seconds * 1e6) as i64))
    };
    let expires_at = claims.get("exp").and_then(time).ok_or(Refused::Invalid("no exp"))?;
    if now >= expires_at.saturating_add(LEEWAY) {
        return Err(Refused::Invalid("expired"));
    }
    match claims.get("nbf").map(time) {
        Some(None) => Err(Refused::Invalid("nbf")),
        Some(Some(from)) if now.saturating_add(LEEWAY) < from => Err(Refused::Invalid("not yet")),
        _ => Ok(expires_at),
    }
}

/// Whether the token is an access token, for Ward, and one that its bearer may present.
fn judge_use(header: &Header, claims: &Map<String, Value>, config: &IssuerConfig) -> Result<(), Refused> {
    // RFC 7515, section 4.1.11: what must be understood and is not makes the token invalid.
    if header.crit.is_some() {
        return Err(Refused::Invalid("crit"));
    }
    // RFC 9068, section 4, and what was usual before it. Log-out tokens, proofs and the like are told apart by this.
    let access = |typ: &str| {
        let typ = typ.to_ascii_lowercase();
        ["at+jwt", "jwt"].contains(&typ.strip_prefix("application/").unwrap_or(&typ))
    };
    if !header.typ.as_deref().is_none_or(access) {
        return Err(Refused::Invalid("typ"));
    }
    // RFC 7800: such a token is worth something only with a proof of its key, which Ward does not ask for.
    if claims.contains_key("cnf") {
        return Err(Refused::Invalid("bound to a key"));
    }
    // Amazon Cognito says with this claim which of its tokens are for the client alone.
    if claims.get("token_use").is_some_and(|token_use| token_use.as_str() != Some("access")) {
        return Err(Refused::Invalid("token_use"));
    }
    // A token that names an audience is judged by that alone: its client may call other services too.
    let audience = match (claims.get("aud"), &config.client_id_claim) {
        (None, Some(claim)) => claims.get(claim),
        (audience, _) => audience,
    };
    let named = |wanted: &String| match audience {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(more)) => more.iter().any(|one| one.as_str() == Some(wanted)),
        _ => false,
    };
    if config.audiences.iter().any(named) { Ok(()) } else { Err(Refused::Invalid("audience")) }
}

/// Whether one of the keys that may have signed did. A key's own algorithm counts, never the header's alone.
fn signed_by(
    keys: &KeySet,
    header: &Header,
    algorithm: TokenAlgorithm,
    signed: &str,
    signature: &str,
) -> bool {
    let verifies = |key: &Key| {
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.decoding, algorithm.into())
            .unwrap_or(false)
    };
    // A token that names no key may be any key's; a key without a name may be the one that a token names.
    let may_be_meant = |key: &&Key| match (&header.kid, &key.id) {
        (Some(wanted), Some(id)) => wanted == id,
        _ => true,
    };
    keys.keys.iter().filter(|key| key.algorithm == algorithm).filter(may_be_meant).any(verifies)
}

fn kind(config: &IssuerConfig, claims: &Map<String, Value>) -> PrincipalKind {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let machine = if let Some((claim, value)) = &config.machine {
        match claims.get(claim) {
            Some(Value::Array(several)) => several.contains(value),
            Some(one) => one == value,
            None => false,
        }
    } else {
        let own_client = |name| text("sub").is_some() && text(name) == text("sub");
        ["client_id", "azp", "cid", "appid"].into_iter().any(own_client)
            || text("preferred_username").is_some_and(|name| name.starts_with("service-account-"))
            || text("gty") == Some("client-credentials")
            || text("idtyp") == Some("app")
    };
    if machine { PrincipalKind::Service } else { PrincipalKind::User }
}

fn name_for_people(name: &str) -> Option<String> {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    (!name.is_empty()).then_some(name)
}

/// The address, if the issuer says that it has verified it (`OpenID` Connect Core 1.0, section 5.1). Some providers
/// write the flag as text: Amazon Cognito's userinfo, `JumpCloud`, mapped claims of Microsoft Entra ID.
fn verified_email(claims: &Map<String, Value>) -> Option<String> {
    let verified = match claims.get("email_verified")? {
        Value::Bool(verified) => *verified,
        Value::String(text) => text == "true",
        _ => false,
    };
    verified.then(|| claims.get("email").and_then(Value::as_str).map(str::to_owned))?
}

/// The principal of a subject. It follows from issuer and subject, so that it is the same on every replica and from the
/// first call on, before there is a row: an `Idempotency-Key` of somebody never seen is theirs alone.
fn principal_of(issuer: &str, subject: &str) -> PrincipalId {
    let mut hash = Sha256::new();
    for part in ["ward.principal", issuer, subject] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    PrincipalId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(claims: &Value, now: i64) -> Result<i64, Refused> {
        let claims = claims.as_object().cloned().unwrap_or_default();
        judge_times(&claims, Timestamp::from_micros(now)).map(Timestamp::micros)
    }

    #[test]
    fn a_clock_may_differ_by_thirty_seconds_and_no_more() {
        let (second, now) = (1_000_000, 1_000_000_000);
        let (ends, begins) = (json!({ "exp": 970 }), json!({ "exp": 9000, "nbf": 1030 }));
        assert_eq!(judged(&ends, now), Err(Refused::Invalid("expired")));
        assert_eq!(judged(&ends, now - 1), Ok(970 * second));
        assert_eq!(judged(&begins, now), Ok(9000 * second));
        assert_eq!(judged(&begins, now - 1), Err(Refused::Invalid("not yet")));
    }
}
