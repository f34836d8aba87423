//! Proofs of possession at the gate: a credential that is bound to a key needs a DPoP proof of that key (RFC 9449).
//!
//! The order of the checks decides who can cause which work. The claims of a proof are checked first: they cost next to nothing,
//! and their refusal says nothing about the credential. The signature is verified only for a valid credential whose key the
//! proof names. The proof is then noted as used, so that no replica accepts it again.

use std::net::SocketAddr;

use http::HeaderName;
use sha2::{Digest as _, Sha256};
use ward_db::Tx;

use super::limits::Mark;
use super::nonces;
use super::original::{self, OriginalRequest};
use crate::app::App;
use crate::config::Config;
use crate::context::{Scheme, credential};
use crate::error::ApiError;
use crate::http::Request;
use crate::identity::proof::{DpopProof, ProvenRequest, canonical};
use crate::identity::{self, Thumbprint};

const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The text of the request's credential, with or without a proof.
pub fn bearer_text(request: &Request) -> Option<&[u8]> {
    credential(&request.parts.headers).map(|(_, text)| text)
}

/// The reasons for which a valid credential is refused, as the audit and the metrics have them.
const MISSING: &str = "proof_missing";
const NOT_BOUND: &str = "not_bound";
const OTHER_KEY: &str = "proof_key";
const UNSIGNED: &str = "proof_signature";
const REPLAYED: &str = "proof_replayed";

/// Counts a proof, or a bound credential without one, by its outcome.
fn count(outcome: &'static str) {
    metrics::counter!("ward_dpop_proofs_total", "outcome" => outcome).increment(1);
}

/// Reads the proof that the request announces (401 if its claims do not fit). `None`: the credential is a plain bearer, whose
/// `DPoP` header, if any, means nothing.
pub fn read(request: &Request) -> Result<Option<DpopProof>, ApiError> {
    let Some((Scheme::Dpop, credential)) = credential(&request.parts.headers) else { return Ok(None) };
    let refuse = |what: &'static str| {
        count("malformed");
        tracing::debug!(request_id = request.context.request_id, what, "a proof is refused");
        ApiError::invalid_dpop_proof().saying(format!("The DPoP proof is not valid: {what}"))
    };
    let original = original::stated(request).map_err(refuse)?;
    let text = request.only_header(&DPOP).and_then(|value| value.to_str().ok());
    let text = text.ok_or_else(|| refuse("the request must have exactly one `DPoP` header."))?;
    let (method, urls) = match original {
        Some(OriginalRequest { method, url }) => (method, vec![url]),
        None => (request.parts.method.as_str(), urls_of_request(request)),
    };
    if urls.is_empty() {
        return Err(refuse("this server does not know its own URL. Its operator must set `public_url`."));
    }
    let now = request.context.now;
    let about = ProvenRequest { method, urls: &urls, credential, now };
    let proof = DpopProof::read(text, &about).map_err(refuse)?;
    if request.app.config.dpop_nonces {
        let age = proof.nonce.as_deref().and_then(|nonce| nonces::age(&request.app.vault, nonce, now));
        if age != Some(nonces::Age::Current) {
            let _ = request.context.dpop_nonce.set(nonces::current(&request.app.vault, now)?);
        }
        if age.is_none() {
            count("nonce");
            return Err(ApiError::use_dpop_nonce());
        }
    }
    Ok(Some(proof))
}

/// Checks that the proof is of the key that the credential is bound to. The error is the reason for the audit. The caller
/// has verified the credential, so a stranger's proof never gets as far as its signature.
pub fn check(proof: Option<&DpopProof>, bound_to: Option<Thumbprint>) -> Result<(), &'static str> {
    let wrong = match (proof, bound_to) {
        (None, None) => None,
        (None, Some(_)) => Some(MISSING),
        (Some(_), None) => Some(NOT_BOUND),
        (Some(proof), Some(key)) if proof.thumbprint() != key => Some(OTHER_KEY),
        (Some(proof), Some(_)) => (!proof.is_signed()).then_some(UNSIGNED),
    };
    wrong.map_or(Ok(()), |wrong| {
        count(wrong);
        Err(wrong)
    })
}

/// Notes the use of a proof that [`check`] has accepted. The inner error is the reason for the audit: the proof was used before.
pub async fn spend(request: &Request, proof: &DpopProof) -> Result<Result<(), &'static str>, ApiError> {
    let used = proof.used;
    // One request may be authorized twice, as the retry of a rotation is.
    if request.context.dpop_used.get() == Some(&used.id) {
        return Ok(Ok(()));
    }
    let first = request.app.recent_proofs.note(&used)
        && request
            .app
            .db
            .write("gate.note_proof", move |tx: &mut Tx<'_>| identity::note_proof(tx, &used))
            .await?;
    if !first {
        count(REPLAYED);
        return Ok(Err(REPLAYED));
    }
    count("accepted");
    let _ = request.context.dpop_used.set(used.id);
    Ok(Ok(()))
}

/// Whether the request has a valid proof of the key, if there is one. The proof counts as used.
pub async fn is_shown(request: &Request, bound_to: Option<Thumbprint>) -> Result<bool, ApiError> {
    let Ok(proof) = read(request) else { return Ok(false) };
    if check(proof.as_ref(), bound_to).is_err() {
        return Ok(false);
    }
    match proof {
        Some(proof) => Ok(spend(request, &proof).await?.is_ok()),
        None => Ok(true),
    }
}

/// The name under which this server remembers a credential. With a proof it includes the key. Otherwise a thief of the credential
/// would pass by the shares of failing clients, because its holder's uses are valid.
pub fn mark(credential: Mark, proof: Option<&DpopProof>) -> Mark {
    let Some(proof) = proof else { return credential };
    Sha256::new_with_prefix(credential).chain_update(proof.thumbprint().as_bytes()).finalize().into()
}

/// The URLs of a request to this server, as clients may know it.
fn urls_of_request(request: &Request) -> Vec<String> {
    let path = request.parts.uri.path();
    own_urls(&request.app).iter().filter_map(|base| canonical(&format!("{base}{path}"))).collect()
}

/// Whether proofs can be accepted at all.
pub fn knows_its_url(app: &App) -> bool {
    !own_urls(app).is_empty()
}

/// The URLs under which clients reach this server, without a slash at the end: the setting, or else the listener's address.
/// None if the listener serves all addresses, because a client's `host` header proves nothing.
fn own_urls(app: &App) -> Vec<String> {
    let listening = app.listening.get().copied();
    match &app.config.public_url {
        Some(url) => vec![url.trim_end_matches('/').to_owned()],
        None => listening.map(|address| urls_of(&app.config, address)).unwrap_or_default(),
    }
}

fn urls_of(config: &Config, address: SocketAddr) -> Vec<String> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    if address.ip().is_unspecified() {
        return Vec::new();
    }
    let local = address.ip().is_loopback().then(|| format!("{scheme}://localhost:{}", address.port()));
    [format!("{scheme}://{address}")].into_iter().chain(local).collect()
}
