//! Access tokens: one caller fetches a token for all, and it is kept while it is valid.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, json};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use url::Url;

use super::{Grant, TokenAuth, basic, sensitive};
use crate::client::{Answer, Outbound, Request};
use crate::{Failure, FailureKind, Secret, json as bounded};

/// The longest time before its expiry in which a token is no longer used.
const MARGIN: Duration = Duration::from_secs(30);
/// The longest time that a token is kept, even if its answer says more.
const LONGEST: Duration = Duration::from_hours(24);
/// How long a discovered token endpoint is kept.
const DISCOVERY_KEPT: Duration = Duration::from_hours(1);
/// The maximum number of tokens kept.
const SLOTS: usize = 10_000;

/// The tokens in use, by the fingerprint of how they were fetched.
#[derive(Default)]
pub struct Tokens {
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("slots", &self.slots.lock().len()).finish()
    }
}

/// The caller with the slot's lock fetches the token. The others wait and share the outcome.
#[derive(Default)]
struct Slot {
    /// The number of ended attempts, so that a waiting caller can tell that one ended meanwhile.
    rounds: AtomicU64,
    state: AsyncMutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    token: Option<Held>,
    failed: Option<Failure>,
    token_url: Option<(Url, Instant)>,
}

struct Held {
    token: Secret,
    until: Instant,
}

impl Tokens {
    /// Returns the current token or a new one. `refused` is a token that the other side did not accept; it is
    /// not returned again.
    ///
    /// # Errors
    /// [`FailureKind::AuthFailed`] if the token endpoint refuses, otherwise the errors of [`Outbound::send`].
    pub async fn get(
        &self,
        outbound: &Outbound,
        how: &TokenAuth,
        refused: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Secret, Failure> {
        let slot = self.slot(how.fingerprint());
        let seen = slot.rounds.load(Ordering::Acquire);
        let Ok(mut state) = tokio::time::timeout_at(deadline, slot.state.lock()).await else {
            return Err(Failure::new(FailureKind::Timeout, "no token arrived in time"));
        };
        if let Some(held) = &state.token
            && held.until > Instant::now()
            && Some(&held.token) != refused
        {
            return Ok(held.token.clone());
        }
        let ended_meanwhile = slot.rounds.load(Ordering::Acquire) != seen;
        if let Some(failure) = state.failed.clone().filter(|_| ended_meanwhile) {
            return Err(failure);
        }
        let outcome = fetch(outbound, how, &mut state.token_url, deadline).await;
        slot.rounds.fetch_add(1, Ordering::Release);
        match outcome {
            Ok(held) => {
                let token = held.token.clone();
                state.token = Some(held);
                state.failed = None;
                Ok(token)
            }
            Err(failure) => {
                state.token = None;
                state.token_url = None;
                state.failed = Some(failure.clone());
                Err(failure)
            }
        }
    }

    fn slot(&self, key: [u8; 32]) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if slots.len() >= SLOTS {
            let now = Instant::now();
            slots.retain(|_, slot| {
                let idle = slot.state.try_lock();
                idle.is_err()
                    || idle.is_ok_and(|state| state.token.as_ref().is_some_and(|held| held.until > now))
            });
            // All of them are valid: fetching some tokens twice is better than growing without a limit.
            if slots.len() >= SLOTS {
                slots.clear();
            }
        }
        slots.entry(key).or_default().clone()
    }
}

async fn fetch(
    outbound: &Outbound,
    how: &TokenAuth,
    discovered: &mut Option<(Url, Instant)>,
    deadline: Instant,
) -> Result<Held, Failure> {
    let token_url = match (&how.token_url, &how.grant, discovered.as_ref()) {
        (Some(url), ..) => url.clone(),
        (None, _, Some((url, until))) if *until > Instant::now() => url.clone(),
        (None, Grant::SmartBackendServices { fhir_base, .. }, _) => {
            let found = discover(outbound, fhir_base, deadline).await?;
            *discovered = Some((found.clone(), Instant::now() + DISCOVERY_KEPT));
            found
        }
        _ => return Err(Failure::misconfigured("no token_url is configured")),
    };
    let (grant, url) = (how.grant.clone(), token_url.clone());
    // Signing with a long key takes milliseconds.
    let (form, authorization) = outbound.work(move || presented(&grant, &url)).await??;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(value) = authorization {
        headers.insert(AUTHORIZATION, value);
    }
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form.iter().map(|(k, v)| (*k, v.expose())))
        .finish();
    let request = Request { method: Method::POST, url: token_url, headers, body: body.into() };
    let sent_at = Instant::now();
    let answer = outbound.send(&request, deadline).await?;
    read(&answer, sent_at, how.assumed_lifetime)
}

/// The token endpoint that a FHIR server names in `.well-known/smart-configuration` (SMART App Launch 2.2,
/// "Conformance").
async fn discover(outbound: &Outbound, fhir_base: &Url, deadline: Instant) -> Result<Url, Failure> {
    let text = format!("{}/.well-known/smart-configuration", fhir_base.as_str().trim_end_matches('/'));
    let url = Url::parse(&text).map_err(|_| Failure::misconfigured("the FHIR base URL is not a URL"))?;
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let request = Request { method: Method::GET, url, headers, body: bytes::Bytes::new() };
    let answer = outbound.send(&request, deadline).await?;
    // A server that is only busy or temporarily broken is not configured wrongly.
    let passing = matches!(answer.status.as_u16(), 408 | 425 | 429 | 500..);
    if passing {
        let message = format!("the server answered {} for its smart-configuration", answer.status.as_u16());
        return Err(Failure::new(FailureKind::Unreachable, message));
    }
    if answer.status != StatusCode::OK {
        return Err(Failure::misconfigured(format!(
            "the server answered {} for its smart-configuration; set token_url",
            answer.status.as_u16()
        )));
    }
    let said = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    let found = said["token_endpoint"].as_str().and_then(|text| Url::parse(text).ok());
    // A document fetched over https must not send the assertion over an unencrypted connection.
    let found = found.filter(|found| found.scheme() == "https" || found.scheme() == fhir_base.scheme());
    found.ok_or_else(|| {
        Failure::misconfigured("the server's smart-configuration names no usable token_endpoint")
    })
}

type Form = Vec<(&'static str, Secret)>;

/// The form of a token request, and the `authorization` header if the grant has one.
fn presented(grant: &Grant, token_url: &Url) -> Result<(Form, Option<HeaderValue>), Failure> {
    let plain = |text: &str| Secret::new(text);
    let mut form: Form = Vec::new();
    let mut authorization = None;
    let scopes = match grant {
        Grant::ClientCredentials { client_id, client_secret, in_form, scopes } => {
            form.push(("grant_type", plain("client_credentials")));
            if *in_form {
                form.push(("client_id", plain(client_id)));
                form.push(("client_secret", client_secret.clone()));
            } else {
                let basic = Secret::new(format!("Basic {}", basic(client_id, client_secret)));
                authorization = Some(sensitive(&basic)?);
            }
            scopes
        }
        Grant::JwtBearer { signer, issuer, subject, audience, scopes, scopes_in_jwt } => {
            form.push(("grant_type", plain("urn:ietf:params:oauth:grant-type:jwt-bearer")));
            let mut more = Map::new();
            if *scopes_in_jwt {
                more.insert("scope".to_owned(), json!(scopes.join(" ")));
            }
            let audience = audience.as_deref().unwrap_or(token_url.as_str());
            form.push(("assertion", signer.statement(issuer, subject.as_deref(), audience, more)?));
            if *scopes_in_jwt { &Vec::new() } else { scopes }
        }
        Grant::SmartBackendServices { signer, client_id, audience, scopes, .. } => {
            form.push(("grant_type", plain("client_credentials")));
            form.push((
                "client_assertion_type",
                plain("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ));
            let audience = audience.as_deref().unwrap_or(token_url.as_str());
            form.push((
                "client_assertion",
                signer.statement(client_id, Some(client_id), audience, Map::new())?,
            ));
            scopes
        }
        Grant::GcpWif { signer, issuer, subject, provider, scopes } => {
            form.push(("grant_type", plain("urn:ietf:params:oauth:grant-type:token-exchange")));
            form.push(("requested_token_type", plain("urn:ietf:params:oauth:token-type:access_token")));
            form.push(("subject_token_type", plain("urn:ietf:params:oauth:token-type:jwt")));
            form.push(("audience", plain(provider)));
            // If the provider has no audience of its own, its audience is its resource name as an https URL.
            let audience = format!("https:{provider}");
            form.push(("subject_token", signer.statement(issuer, Some(subject), &audience, Map::new())?));
            scopes
        }
    };
    if !scopes.is_empty() {
        form.push(("scope", plain(&scopes.join(" "))));
    }
    Ok((form, authorization))
}

/// Reads the token from a token endpoint's answer (RFC 6749 sections 5.1 and 5.2).
fn read(answer: &Answer, sent_at: Instant, assumed: Duration) -> Result<Held, Failure> {
    let said = bounded::parse(&answer.body, bounded::SMALL_TREE).unwrap_or_default();
    let status = answer.status.as_u16();
    match status {
        200 | 201 => {}
        400 | 401 | 403 => {
            // The error's name comes from a fixed list; its description could repeat anything.
            let known = |name: &&str| {
                name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            };
            let name = said["error"].as_str().filter(known).unwrap_or("no reason given");
            let message = format!("the token endpoint refused with {status}: {name}");
            return Err(Failure::new(FailureKind::AuthFailed, message));
        }
        300..400 | 404 | 405 | 410 => {
            return Err(Failure::misconfigured(format!("the token endpoint answered {status}")));
        }
        _ => {
            let message = format!("the token endpoint answered {status}");
            return Err(Failure::new(FailureKind::Unreachable, message));
        }
    }
    let garbage = |message: &str| Failure::new(FailureKind::Garbage, message);
    let token = said["access_token"].as_str().filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| garbage("the token endpoint's answer holds no access_token"))?;
    if said["token_type"].as_str().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(garbage("the token endpoint returned a token that is not a bearer token"));
    }
    // Some servers send the number as a string.
    let seconds = said["expires_in"].as_u64().or_else(|| said["expires_in"].as_str()?.parse().ok());
    let lifetime = seconds.map_or(assumed, Duration::from_secs).min(LONGEST);
    let used = lifetime.saturating_sub(MARGIN.min(lifetime / 10));
    Ok(Held { token: Secret::new(token), until: sent_at + used })
}
