//! The context that all steps of one request share: its id, its client, its time.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{AUTHORIZATION, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use ward_db::Timestamp;
use ward_server::Peer;

use crate::address::{bucket, client_address};
use crate::quotas::Limits;
use crate::shares::{Holder, Share};

/// Identifies a request in its answer, its log lines and its audit events.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a `user-agent` header that are kept.
const USER_AGENT_KEPT: usize = 256;

/// The context that all steps of one request share.
#[derive(Debug)]
pub struct Context {
    /// The request's id: the client's own, if it sent a usable one.
    pub request_id: String,
    /// The client's address, as determined by [`client_address`].
    pub address: IpAddr,
    /// The `user-agent` header, cut to a bounded length.
    pub user_agent: Option<String>,
    /// The time at which the request arrived.
    pub now: Timestamp,
    /// The limits of the settings on what a workspace may have. `None`: an act of the operator or of Ward itself, which no
    /// quota bounds.
    pub quotas: Option<Limits>,
    /// The issuers whose users can sign in. `None`: an act of the operator or of Ward itself, which asks for no issuer.
    pub issuers: Option<Arc<[Arc<str>]>>,
    /// Whether the credential is announced with a DPoP proof, which decides the form of a challenge.
    pub(crate) announces_proof: bool,
    /// The proof that the request has used.
    pub(crate) dpop_used: OnceLock<[u8; 32]>,
    /// The nonce for the client's next proofs, if it needs one.
    pub(crate) dpop_nonce: OnceLock<HeaderValue>,
    /// The expiry of the caller's key, once there is a caller.
    pub(crate) key_expires: OnceLock<Timestamp>,
    /// The state of the rate that the request was charged to, if it was.
    pub(crate) rate: OnceLock<RateState>,
    /// The wait before the answer, because the workspace has many answers of 403 in this second.
    pub(crate) wait: OnceLock<Duration>,
    /// The share of memory of the request's body, held until the request ends.
    pub(crate) body: OnceLock<Share>,
}

impl Context {
    /// The context of an operation on the command line.
    pub fn of_operator(now: Timestamp) -> Self {
        Self {
            request_id: crate::random::request_id().to_string(),
            address: IpAddr::from([127, 0, 0, 1]),
            user_agent: Some(concat!("ward/", env!("CARGO_PKG_VERSION")).to_owned()),
            now,
            quotas: None,
            issuers: None,
            announces_proof: false,
            dpop_used: OnceLock::new(),
            dpop_nonce: OnceLock::new(),
            key_expires: OnceLock::new(),
            rate: OnceLock::new(),
            wait: OnceLock::new(),
            body: OnceLock::new(),
        }
    }

    /// The context of an action of Ward's own when a time has come, such as a lapse.
    pub fn of_time(now: Timestamp) -> Self {
        Self { user_agent: None, ..Self::of_operator(now) }
    }

    /// The holder whose share of a pool pays for a request without a workspace: its address.
    pub fn holder(&self) -> Holder {
        Holder::Address(bucket(self.address))
    }

    /// The context of a request that arrives `now`. The client's address may come from a trusted proxy.
    pub(crate) fn of_request(
        parts: &Parts,
        trusted_proxies: &[IpNet],
        (quotas, issuers): (Limits, Arc<[Arc<str>]>),
        now: Timestamp,
    ) -> Self {
        let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
        Self {
            request_id: request_id(&parts.headers),
            address: client_address(peer, &parts.headers, trusted_proxies),
            user_agent: user_agent(&parts.headers),
            now,
            quotas: Some(quotas),
            issuers: Some(issuers),
            announces_proof: credential(&parts.headers).is_some_and(|(scheme, _)| scheme == Scheme::Dpop),
            dpop_used: OnceLock::new(),
            dpop_nonce: OnceLock::new(),
            key_expires: OnceLock::new(),
            rate: OnceLock::new(),
            wait: OnceLock::new(),
            body: OnceLock::new(),
        }
    }
}

/// The way in which a request presents its credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The header has the credential alone (RFC 6750, section 2.1).
    Bearer,
    /// A proof of possession comes with the credential (RFC 9449, section 7.1).
    Dpop,
}

/// The scheme and the text of a request's credential.
pub fn credential(headers: &HeaderMap) -> Option<(Scheme, &[u8])> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, text) = value.split_at(value.iter().position(|byte| *byte == b' ')?);
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case(b"Bearer") => Scheme::Bearer,
        _ if scheme.eq_ignore_ascii_case(b"DPoP") => Scheme::Dpop,
        _ => return None,
    };
    Some((scheme, text.trim_ascii()))
}

/// A client's id is accepted if it is the only one and cannot harm a log line or a header.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let mut given = headers.get_all(REQUEST_ID).iter();
    let only = given.next().filter(|_| given.next().is_none());
    only.and_then(|value| value.to_str().ok())
        .filter(|id| (1..=128).contains(&id.len()))
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
        .map_or_else(|| crate::random::request_id().to_string(), str::to_owned)
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = String::from_utf8_lossy(headers.get(USER_AGENT)?.as_bytes()).replace('\0', "");
    let mut end = text.len().min(USER_AGENT_KEPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Some(text[..end].to_owned())
}

/// The remaining tokens of a rate for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateState {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Seconds until a refused client may retry, or until the bucket is full.
    pub reset_seconds: u64,
}

impl RateState {
    /// Writes `x-ratelimit-limit`, `-remaining` and `-reset` (Unix seconds).
    pub fn write_to(self, headers: &mut HeaderMap, now: Timestamp) {
        let now = u64::try_from(now.micros()).unwrap_or(0).div_ceil(1_000_000);
        headers.insert(HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from(self.limit));
        headers.insert(HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from(self.remaining));
        headers.insert(
            HeaderName::from_static("x-ratelimit-reset"),
            HeaderValue::from(now.saturating_add(self.reset_seconds)),
        );
    }
}
