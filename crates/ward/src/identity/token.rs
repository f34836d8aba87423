//! Access tokens: JSON Web Tokens (RFC 7519) of the configured issuers, verified without a query.
//!
//! A token is a machine's if the issuer's `machine_claim` has its `machine_value`. Without that setting,
//! two rules decide. The subject is the token's own client (`client_id`, `azp`, `cid` or `appid`; RFC 9068,
//! section 2.2). Or the token has the mark of a common provider (`gty: client-credentials`, `idtyp: app`, a
//! `preferred_username` that begins with `service-account-`). Every other token is a person's.

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
use super::issuers::{Issuer, Issuers, Key, Unavailable};
use super::public_key::Thumbprint;
use crate::config::issuers::{IssuerConfig, TokenAlgorithm};
use crate::ids::PrincipalId;
use crate::legible;
use crate::text::hex;

/// The greatest accepted difference between an issuer's clock and Ward's.
pub(crate) const LEEWAY: Duration = Duration::from_secs(30);
/// The longest token that is parsed, bytes.
const LONGEST: usize = 16 * 1024;
/// The longest subject, bytes (`OpenID` Connect Core 1.0, section 2: 255 ASCII characters).
const LONGEST_SUBJECT: usize = 255;
/// The kept length of a person's name, characters.
const LONGEST_NAME: usize = 200;

/// A valid token: signed by its issuer, meant for Ward, and not expired.
pub struct VerifiedToken {
    pub issuer: Arc<Issuer>,
    /// The subject that the issuer names.
    pub subject: String,
    /// Whether the subject is a person or a machine.
    pub kind: PrincipalKind,
    /// The subject's display name, if the token has one.
    pub name: Option<String>,
    pub expires_at: Timestamp,
    /// The principal of this subject; its row exists once it has written something.
    pub principal: PrincipalId,
    /// The public key whose possession the bearer must prove.
    pub bound_to: Option<Thumbprint>,
    /// The claim `sub`, even if another claim names the subject.
    sub: Option<String>,
    /// An e-mail address that the issuer has verified.
    email: Option<String>,
}

// Written by hand, because the subject of a token does not belong in a log.
impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedToken").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl VerifiedToken {
    /// The token that a stored subject would present. Only the explanation of a decision uses it, because it proves nothing.
    pub const fn assumed(
        issuer: Arc<Issuer>,
        subject: String,
        (principal, kind): (PrincipalId, PrincipalKind),
        now: Timestamp,
    ) -> Self {
        Self {
            issuer,
            subject,
            kind,
            name: None,
            expires_at: now,
            principal,
            sub: None,
            email: None,
            bound_to: None,
        }
    }

    /// A hash of the subject for the audit: it can be compared, but not read.
    pub fn subject_hash(&self) -> String {
        hex(&Sha256::digest(self.subject.as_bytes())[..16])
    }

    /// An e-mail address of this person that the issuer has verified, from the token or from the issuer's
    /// userinfo. `text` is the token. The error means that the issuer could not be asked.
    pub async fn verified_email(&self, text: &str) -> Result<Option<String>, Unavailable> {
        if self.email.is_some() {
            return Ok(self.email.clone());
        }
        let told = self.issuer.userinfo(text).await?;
        let claims = told.as_ref().and_then(Value::as_object);
        // OpenID Connect Core 1.0, section 5.3.2: an answer about another subject must not be used.
        let own = claims
            .filter(|it| self.sub.is_some() && it.get("sub").and_then(Value::as_str) == self.sub.as_deref());
        Ok(own.and_then(verified_email))
    }
}

/// The reason why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// The token is of an issuer that the operator has not configured.
    Foreign,
    /// The token is not valid. The reason is for the log; clients do not get it.
    Invalid(&'static str),
    /// The token may be valid, but its issuer's keys are not available.
    Unavailable(Unavailable),
}

impl From<Unavailable> for TokenRefusal {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

/// The JOSE header (RFC 7515, section 4).
#[derive(Deserialize)]
pub(crate) struct Header {
    pub alg: String,
    kid: Option<String>,
    pub typ: Option<String>,
    pub crit: Option<Value>,
}

/// Whether a bearer has the form of a token. The check costs next to nothing.
pub fn may_be_one(text: &str) -> bool {
    text.len() <= LONGEST && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The parts of a token, before any of its content is believed.
pub(crate) struct Parts<'a> {
    pub header: Header,
    pub claims: Map<String, Value>,
    pub signed: &'a str,
    pub signature: &'a str,
}

impl<'a> Parts<'a> {
    pub fn read(text: &'a str) -> Result<Self, &'static str> {
        if !may_be_one(text) {
            return Err("not a token");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or("not a token")?;
        let (header, payload) = signed.split_once('.').ok_or("not a token")?;
        let header = decode(header).ok_or("no header")?;
        Ok(Self { header, claims: decode(payload).ok_or("no claims")?, signed, signature })
    }

    /// Whether one of these keys made the signature.
    pub fn signed_by(&self, keys: &[Key], algorithm: TokenAlgorithm) -> bool {
        signed_by(keys, &self.header, algorithm, self.signed, self.signature)
    }
}

/// Verifies a bearer that is not an API key.
pub async fn verify(issuers: &Issuers, text: &str, now: Timestamp) -> Result<VerifiedToken, TokenRefusal> {
    use TokenRefusal::Invalid;
    let parts = Parts::read(text).map_err(Invalid)?;
    let (header, claims) = (&parts.header, &parts.claims);
    // The issuer comes first: a caller cannot make Ward fetch from, or compute for, an issuer that is not
    // configured.
    let issuer = claims.get("iss").and_then(Value::as_str).and_then(|iss| issuers.named(iss));
    let issuer = issuer.ok_or(TokenRefusal::Foreign)?;
    let algorithm = algorithm(header, &issuer.config.algorithms).ok_or(Invalid("algorithm"))?;
    // Claims are checked before the signature, so that an expired token causes no fetch of keys.
    let expires_at = judge_times(claims, now)?;
    judge_use(header, claims, &issuer.config)?;
    let bound_to = binding(claims)?;

    let keys = issuer.keys().await?;
    if !parts.signed_by(&keys.keys, algorithm) {
        let newer = issuer.newer_keys(&keys).await.ok_or(Invalid("signature"))?;
        if !parts.signed_by(&newer.keys, algorithm) {
            return Err(Invalid("signature"));
        }
    }
    let subject = claims.get(&issuer.config.subject_claim).and_then(Value::as_str);
    let subject =
        subject.filter(|it| (1..=LONGEST_SUBJECT).contains(&it.len()) && !it.contains(char::is_control));
    let subject = subject.ok_or(Invalid("subject"))?.to_owned();
    let name = claims.get(&issuer.config.name_claim).and_then(Value::as_str);
    Ok(VerifiedToken {
        kind: kind(&issuer.config, claims),
        name: name.and_then(name_for_people),
        expires_at,
        principal: principal_of(&issuer.name, &subject),
        bound_to,
        sub: claims.get("sub").and_then(Value::as_str).map(str::to_owned),
        email: verified_email(claims),
        issuer: issuer.clone(),
        subject,
    })
}

/// Reads one part of a token, base64url of JSON (RFC 7515, section 7.1).
pub(super) fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The algorithm in the header, if it is one of those accepted. It is never `none` or a symmetric one.
pub(crate) fn algorithm(header: &Header, accepted: &[TokenAlgorithm]) -> Option<TokenAlgorithm> {
    let named = match header.alg.as_str() {
        "RS256" => TokenAlgorithm::RS256,
        "ES256" => TokenAlgorithm::ES256,
        // RFC 9864 gives the second name.
        "EdDSA" | "Ed25519" => TokenAlgorithm::EdDsa,
        _ => return None,
    };
    accepted.contains(&named).then_some(named)
}

/// The time of a numeric claim (RFC 7519, section 2, `NumericDate`).
pub(crate) fn time(value: &Value) -> Option<Timestamp> {
    value.as_f64().and_then(moment)
}

/// A number of seconds since 1970 as a time. Some issuers send fractions. A number beyond the year 9999 is not a time.
pub(super) fn moment(seconds: f64) -> Option<Timestamp> {
    let seconds = Some(seconds).filter(|seconds| (0.0..=253_402_300_799.0).contains(seconds))?;
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    Some(Timestamp::from_micros((seconds * 1e6) as i64))
}

/// Checks `exp` and `nbf` (RFC 7519, sections 4.1.4 and 4.1.5). `exp` is required.
pub(crate) fn judge_times(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, TokenRefusal> {
    let expires_at = claims.get("exp").and_then(time).ok_or(TokenRefusal::Invalid("no exp"))?;
    if now >= expires_at.saturating_add(LEEWAY) {
        return Err(TokenRefusal::Invalid("expired"));
    }
    match claims.get("nbf").map(time) {
        Some(None) => Err(TokenRefusal::Invalid("nbf")),
        Some(Some(from)) if now.saturating_add(LEEWAY) < from => Err(TokenRefusal::Invalid("not yet")),
        _ => Ok(expires_at),
    }
}

/// Checks that the token is an access token for Ward, and that its bearer may present it.
fn judge_use(
    header: &Header,
    claims: &Map<String, Value>,
    config: &IssuerConfig,
) -> Result<(), TokenRefusal> {
    // RFC 7515, section 4.1.11: an extension that must be understood and is not makes the token invalid.
    if header.crit.is_some() {
        return Err(TokenRefusal::Invalid("crit"));
    }
    // RFC 9068, section 4, and the custom before it. The type tells log-out tokens, proofs and others
    // apart.
    let access = |typ: &str| {
        let typ = typ.to_ascii_lowercase();
        ["at+jwt", "jwt"].contains(&typ.strip_prefix("application/").unwrap_or(&typ))
    };
    if !header.typ.as_deref().is_none_or(access) {
        return Err(TokenRefusal::Invalid("typ"));
    }
    // Amazon Cognito marks with this claim the tokens that are only for the client.
    if claims.get("token_use").is_some_and(|token_use| token_use.as_str() != Some("access")) {
        return Err(TokenRefusal::Invalid("token_use"));
    }
    // If a token names an audience, only the audience decides, because its client may call other services
    // too.
    let audience = match (claims.get("aud"), &config.client_id_claim) {
        (None, Some(claim)) => claims.get(claim),
        (audience, _) => audience,
    };
    let named = |wanted: &String| match audience {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(more)) => more.iter().any(|one| one.as_str() == Some(wanted)),
        _ => false,
    };
    if config.audiences.iter().any(named) { Ok(()) } else { Err(TokenRefusal::Invalid("audience")) }
}

/// The key in `cnf` (RFC 7800; RFC 9449, section 6.1), if the token is bound to one. A token that is bound to anything else, such as
/// a client's certificate, is refused, because Ward cannot check it.
fn binding(claims: &Map<String, Value>) -> Result<Option<Thumbprint>, TokenRefusal> {
    let Some(confirmation) = claims.get("cnf") else { return Ok(None) };
    let only = confirmation.as_object().filter(|members| members.len() == 1);
    let jkt = only.and_then(|members| members.get("jkt")).and_then(Value::as_str);
    let key =
        jkt.and_then(Thumbprint::parse).ok_or(TokenRefusal::Invalid("bound to something else than a key"))?;
    Ok(Some(key))
}

/// Whether one of the matching keys made the signature. A key's own algorithm counts, never the header's
/// alone.
fn signed_by(
    keys: &[Key],
    header: &Header,
    algorithm: TokenAlgorithm,
    signed: &str,
    signature: &str,
) -> bool {
    let verifies = |key: &Key| {
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.decoding, algorithm.into())
            .unwrap_or(false)
    };
    // A token without `kid` may be signed by any key, and a key without `kid` may be the one that a token
    // names.
    let may_be_meant = |key: &&Key| match (&header.kid, &key.id) {
        (Some(wanted), Some(id)) => wanted == id,
        _ => true,
    };
    keys.iter().filter(|key| key.algorithm == algorithm).filter(may_be_meant).any(verifies)
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
    let name: String = name.trim().chars().take(LONGEST_NAME).collect();
    let name = legible::fit(&name);
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The address, if the issuer says that it has verified it (`OpenID` Connect Core 1.0, section 5.1). Some
/// providers write the flag as text: Amazon Cognito's userinfo, `JumpCloud`, mapped claims of Microsoft
/// Entra ID.
fn verified_email(claims: &Map<String, Value>) -> Option<String> {
    let verified = match claims.get("email_verified")? {
        Value::Bool(verified) => *verified,
        Value::String(text) => text == "true",
        _ => false,
    };
    verified.then(|| claims.get("email").and_then(Value::as_str).map(str::to_owned))?
}

/// The principal of a subject, derived from issuer and subject. So it is the same on every replica and
/// before it has a row, and an `Idempotency-Key` of a new subject is its alone.
pub(crate) fn principal_of(issuer: &str, subject: &str) -> PrincipalId {
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

    fn judged(claims: &Value, now: i64) -> Result<i64, TokenRefusal> {
        let claims = claims.as_object().cloned().unwrap_or_default();
        judge_times(&claims, Timestamp::from_micros(now)).map(Timestamp::micros)
    }

    #[test]
    fn a_clock_may_differ_by_thirty_seconds_and_no_more() {
        let (second, now) = (1_000_000, 1_000_000_000);
        let (ends, begins) = (json!({ "exp": 970 }), json!({ "exp": 9000, "nbf": 1030 }));
        assert_eq!(judged(&ends, now), Err(TokenRefusal::Invalid("expired")));
        assert_eq!(judged(&ends, now - 1), Ok(970 * second));
        assert_eq!(judged(&begins, now), Ok(9000 * second));
        assert_eq!(judged(&begins, now - 1), Err(TokenRefusal::Invalid("not yet")));
    }
}
