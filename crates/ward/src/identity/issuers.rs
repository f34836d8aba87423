//! The configured issuers and their signing keys: discovery, fetching, rotation and outages.
//!
//! Keys are fetched when they are first needed, when they are too old, and when a token names an unknown
//! key. A token whose key is known never waits for a fetch.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use ward_db::Timestamp;

use crate::clock::Clock;
use crate::config::issuers::{IssuerConfig, TokenAlgorithm};

/// Time limit for one document of an issuer.
const FETCH_TIME: Duration = Duration::from_secs(4);
/// The largest document that an issuer may send, bytes.
const LARGEST_DOCUMENT: usize = 512 * 1024;
/// Bounds the keys of one issuer, because a token without `kid` is tried against all of them.
const MOST_KEYS: usize = 32;
/// A token with an unknown key causes a fetch only after this pause since the last such fetch.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_mins(1);
/// No fetch begins within this pause after a failed one.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// The reason why an issuer's document cannot be used. It goes to the log and contains no token and no
/// secret.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The HTTP client could not be created.
    #[error("cannot create the HTTP client: {0}")]
    Client(reqwest::Error),
    /// The issuer could not be reached or did not answer in time.
    #[error("{what}: {error}")]
    Unreachable {
        /// The kind of document, such as a key set.
        what: &'static str,
        /// The client's error, without the URL.
        error: reqwest::Error,
    },
    /// The issuer answered with a status other than 200.
    #[error("{what}: status {status}")]
    Status {
        /// The kind of document, such as a key set.
        what: &'static str,
        status: u16,
    },
    /// The issuer's document is malformed or contradicts the settings.
    #[error("{what}: {problem}")]
    Unusable {
        /// The kind of document, such as a key set.
        what: &'static str,
        /// The problem, as a phrase that follows `what`.
        problem: &'static str,
    },
}

impl FetchError {
    /// Whether the same request may succeed later.
    const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Client(_) | Self::Unusable { .. } => false,
        }
    }
}

/// The keys of an issuer are not available now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Seconds after which a retry is worthwhile.
    pub retry_after: u64,
}

/// A key of an issuer that verifies signatures of tokens.
pub struct Key {
    /// The `kid` of the key, if it has one.
    pub id: Option<String>,
    /// The only algorithm that the key verifies.
    pub algorithm: TokenAlgorithm,
    pub decoding: DecodingKey,
}

/// The keys of an issuer at the time of one fetch.
pub struct KeySet {
    /// The keys that verify an accepted algorithm.
    pub keys: Vec<Key>,
    /// The issuer's userinfo endpoint, if it has one (`OpenID` Connect Core 1.0, section 5.3).
    pub userinfo: Option<String>,
    generation: u64,
}

#[derive(Default)]
struct KeysState {
    keys: Option<Arc<KeySet>>,
    generation: u64,
    /// The start of the fetch that brought the keys.
    fetched: Last,
    /// The last failed fetch, if none has succeeded since.
    failed: Last,
    /// The last fetch because of an unknown key.
    looked_again: Last,
}

/// The timestamp of the last occurrence. If the clock has been set back before it, the occurrence counts as
/// happening now. Otherwise, keys would stay trusted and pauses would last until the clock catches up.
#[derive(Default)]
pub(crate) struct Last(pub Option<Timestamp>);

impl Last {
    pub fn age(&mut self, now: Timestamp) -> Option<Duration> {
        let at = self.0?.min(now);
        self.0 = Some(at);
        Some(Duration::from_micros((now.micros() - at.micros()).unsigned_abs()))
    }

    pub fn is_younger(&mut self, than: Duration, now: Timestamp) -> bool {
        self.age(now).is_some_and(|age| age < than)
    }
}

type FetchedKeys = Result<Arc<KeySet>, Unavailable>;

/// The reason for a fetch. An unknown key in a token is a reason only once a minute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    NoneOrOld,
    UnknownKey,
}

/// One issuer, its keys and its HTTP client.
pub struct Issuer {
    pub config: IssuerConfig,
    /// The issuer identifier, shared by every verified token.
    pub name: Arc<str>,
    http: reqwest::Client,
    clock: Clock,
    state: Mutex<KeysState>,
    /// Held during a fetch, so that one fetch serves all waiting callers.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The issuers from the configuration, found by their `iss`.
pub struct Issuers {
    all: Vec<Arc<Issuer>>,
    names: Arc<[Arc<str>]>,
}

impl Issuers {
    /// Prepares the configured issuers and the cryptography that verifies their tokens. It fetches nothing
    /// yet.
    pub fn new(config: &[IssuerConfig], clock: &Clock) -> Result<Self, FetchError> {
        // The provider that the library would pick depends on the features that other crates enable, and a
        // wrong pick panics at the first token. A provider can be installed once per process; a second Ward
        // in the same process reuses it.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        if config.is_empty() {
            return Ok(Self { all: Vec::new(), names: Arc::default() });
        }
        // Proxies from the environment are not used: a person who can set a variable must not see or change
        // signing keys. Redirects are not followed: only URLs that were checked may be fetched.
        #[expect(
            clippy::disallowed_methods,
            reason = "issuers are the operator's settings, so no tenant chooses these addresses"
        )]
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_TIME)
            .connect_timeout(FETCH_TIME)
            .user_agent(concat!("ward/", env!("CARGO_PKG_VERSION")))
            // The bounds on answers count the bytes that arrive.
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]))
            .build()
            .map_err(FetchError::Client)?;
        let issuer = |config: &IssuerConfig| {
            Arc::new(Issuer {
                name: Arc::from(config.issuer.as_str()),
                config: config.clone(),
                http: http.clone(),
                clock: clock.clone(),
                state: Mutex::default(),
                turn: Arc::default(),
            })
        };
        let all: Vec<Arc<Issuer>> = config.iter().map(issuer).collect();
        let names = all.iter().map(|issuer| issuer.name.clone()).collect();
        Ok(Self { all, names })
    }

    /// The issuer of this identifier, compared character for character (`OpenID` Connect Core 1.0, section
    /// 3.1.3.7).
    pub fn named(&self, issuer: &str) -> Option<&Arc<Issuer>> {
        self.all.iter().find(|known| &*known.name == issuer)
    }

    /// Every configured issuer, in the order of the settings.
    pub fn all(&self) -> &[Arc<Issuer>] {
        &self.all
    }

    /// The names of all configured issuers, as tokens have them in `iss`.
    pub fn names(&self) -> Arc<[Arc<str>]> {
        self.names.clone()
    }

    /// Whether at least one issuer is configured.
    pub fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// Fetches the keys of all issuers that have none, so that the first caller need not wait. A failure is
    /// logged; the next token causes a retry.
    pub async fn warm(&self) {
        for issuer in &self.all {
            let _ = issuer.keys().await;
        }
    }
}

impl Issuer {
    /// The keys for verification. It waits for a fetch only if no usable keys are there.
    pub async fn keys(self: &Arc<Self>) -> FetchedKeys {
        let cached = {
            let mut state = self.state.lock();
            let age = state.fetched.age(self.clock.now());
            state.keys.clone().zip(age)
        };
        let Some((keys, age)) = cached else { return self.fetch_after(0, Reason::NoneOrOld).await };
        if age >= self.config.refresh {
            self.refresh_aside(keys.generation);
        }
        if age < self.config.outage.max(self.config.refresh) {
            return Ok(keys);
        }
        self.fetch_after(keys.generation, Reason::NoneOrOld).await
    }

    /// Keys newer than those in which a token's key was not found. `None` if Ward already looked within the
    /// last minute.
    pub async fn newer_keys(self: &Arc<Self>, than: &KeySet) -> Option<Arc<KeySet>> {
        self.fetch_after(than.generation, Reason::UnknownKey).await.ok()
    }

    /// Fetches beside the requests, unless a fetch is running.
    fn refresh_aside(self: &Arc<Self>, generation: u64) {
        if let Ok(turn) = self.turn.clone().try_lock_owned() {
            drop(self.begin(turn, generation, Reason::NoneOrOld));
        }
    }

    /// Fetches the keys, unless newer ones than `generation` are there when this caller's turn comes.
    /// Callers that arrive during a fetch wait for its result.
    async fn fetch_after(self: &Arc<Self>, generation: u64, reason: Reason) -> FetchedKeys {
        let turn = self.turn.clone().lock_owned().await;
        match self.begin(turn, generation, reason) {
            Ok(fetching) => {
                fetching.await.unwrap_or(Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() }))
            }
            Err(found) => found,
        }
    }

    /// Begins a fetch in a task of its own. The request that caused it may be cancelled or time out; the
    /// fetch still ends for the other callers. `Err`: no fetch is needed or allowed, and this is the
    /// result.
    fn begin(
        self: &Arc<Self>,
        turn: OwnedMutexGuard<()>,
        generation: u64,
        reason: Reason,
    ) -> Result<JoinHandle<FetchedKeys>, FetchedKeys> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(keys) = state.keys.as_ref().filter(|keys| keys.generation > generation) {
            return Err(Ok(keys.clone()));
        }
        if let Some(left) = state.failed.age(now).and_then(|age| FAILURE_PAUSE.checked_sub(age))
            && !left.is_zero()
        {
            return Err(Err(Unavailable { retry_after: left.as_secs().max(1) }));
        }
        if reason == Reason::UnknownKey {
            if state.looked_again.is_younger(UNKNOWN_KEY_PAUSE, now) {
                return Err(Err(Unavailable { retry_after: UNKNOWN_KEY_PAUSE.as_secs() }));
            }
            state.looked_again = Last(Some(now));
        }
        drop(state);
        let issuer = self.clone();
        Ok(tokio::spawn(async move {
            let _turn = turn;
            issuer.fetch_and_keep(now).await
        }))
    }

    async fn fetch_and_keep(&self, began: Timestamp) -> FetchedKeys {
        let fetched = self.fetch().await;
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        metrics::counter!("ward_issuer_fetches_total", "issuer" => self.name.to_string(), "outcome" => outcome).increment(1);
        let mut state = self.state.lock();
        match fetched {
            Ok(mut keys) => {
                state.generation += 1;
                keys.generation = state.generation;
                let keys = Arc::new(keys);
                state.keys = Some(keys.clone());
                state.fetched = Last(Some(began));
                state.failed = Last(None);
                Ok(keys)
            }
            Err(error) => {
                tracing::warn!(issuer = %self.name, %error, "cannot fetch the issuer's keys; tokens with unknown keys are refused until a fetch succeeds");
                // The timestamp is taken after the fetch. Otherwise, every caller that waited for a slow
                // fetch would repeat it at once.
                state.failed = Last(Some(self.clock.now()));
                Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() })
            }
        }
    }

    /// Fetches the discovery document, then the keys (`OpenID` Connect Discovery 1.0, section 4; RFC 7517,
    /// section 5).
    async fn fetch(&self) -> Result<KeySet, FetchError> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
            jwks_uri: String,
            userinfo_endpoint: Option<String>,
        }
        const METADATA: &str = "discovery document";
        const KEYS: &str = "key set";
        let unusable = |what, problem| FetchError::Unusable { what, problem };
        let url = format!("{}/.well-known/openid-configuration", self.name.trim_end_matches('/'));
        let metadata: Metadata = serde_json::from_value(self.document(METADATA, &url, None).await?)
            .map_err(|_| unusable(METADATA, "has no issuer or no jwks_uri"))?;
        // Section 4.3: without this check, the author of any page on the host could speak for the issuer.
        if *metadata.issuer != *self.name {
            return Err(unusable(METADATA, "is of another issuer"));
        }
        if !self.config.may_fetch(&metadata.jwks_uri) {
            return Err(unusable(METADATA, "names a jwks_uri that is not https"));
        }
        let document = self.document(KEYS, &metadata.jwks_uri, None).await?;
        let listed =
            document.get("keys").and_then(Value::as_array).ok_or_else(|| unusable(KEYS, "has no keys"))?;
        let usable =
            listed.iter().filter_map(key).filter(|key| self.config.algorithms.contains(&key.algorithm));
        let keys: Vec<Key> = usable.take(MOST_KEYS).collect();
        // A broken deployment may serve an empty set. The keys that are there and still verify are worth
        // more.
        if keys.is_empty() {
            return Err(unusable(KEYS, "holds no key for signatures that are accepted"));
        }
        let userinfo = metadata.userinfo_endpoint.filter(|url| self.config.may_fetch(url));
        Ok(KeySet { keys, userinfo, generation: 0 })
    }

    /// The issuer's claims about the holder of this access token (`OpenID` Connect Core 1.0, section 5.3).
    /// `None` if there are none that Ward can read: the issuer has no such endpoint, refuses a token made
    /// for Ward, or signs its answer.
    pub async fn userinfo(self: &Arc<Self>, token: &str) -> Result<Option<Value>, Unavailable> {
        let keys = self.keys().await?;
        let Some(url) = &keys.userinfo else { return Ok(None) };
        match self.document("userinfo", url, Some(token)).await {
            Ok(told) => Ok(Some(told)),
            Err(FetchError::Status { status: 401 | 403, .. }) => Ok(None),
            Err(error) => {
                tracing::warn!(issuer = %self.name, %error, "cannot fetch the issuer's userinfo; the request continues without it or gets 503");
                if error.may_pass() {
                    return Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() });
                }
                Ok(None)
            }
        }
    }

    /// Fetches a JSON document of bounded size.
    async fn document(
        &self,
        what: &'static str,
        url: &str,
        token: Option<&str>,
    ) -> Result<Value, FetchError> {
        let unreachable =
            |error: reqwest::Error| FetchError::Unreachable { what, error: error.without_url() };
        let mut request = self.http.get(url).header(http::header::ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        if response.status() != http::StatusCode::OK {
            return Err(FetchError::Status { what, status: response.status().as_u16() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > LARGEST_DOCUMENT {
                return Err(FetchError::Unusable { what, problem: "is too large" });
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| FetchError::Unusable { what, problem: "is not JSON" })
    }
}

/// Reads a key of a key set if Ward verifies signatures of its kind (RFC 7517, section 4; RFC 7518, section
/// 6; RFC 8037, section 2). Other keys are ignored, as section 5 of RFC 7517 demands.
pub(crate) fn key(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    if operations.is_some_and(|listed| !listed.iter().any(|operation| operation == "verify")) {
        return None;
    }
    let (algorithm, name, decoding) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            (TokenAlgorithm::RS256, "RS256", DecodingKey::from_rsa_components(text("n")?, text("e")?))
        }
        ("EC", Some("P-256")) => {
            (TokenAlgorithm::ES256, "ES256", DecodingKey::from_ec_components(text("x")?, text("y")?))
        }
        ("OKP", Some("Ed25519")) => {
            (TokenAlgorithm::EdDsa, "EdDSA", DecodingKey::from_ed_components(text("x")?))
        }
        _ => return None,
    };
    // A key with an `alg` is for that algorithm only (RFC 7517, section 4.4). RFC 9864 gives EdDSA on this
    // curve the name "Ed25519".
    let fits = |said: &str| said == name || (algorithm == TokenAlgorithm::EdDsa && said == "Ed25519");
    if !text("alg").is_none_or(fits) {
        return None;
    }
    Some(Key { id: text("kid").map(str::to_owned), algorithm, decoding: decoding.ok()? })
}

impl From<TokenAlgorithm> for Algorithm {
    fn from(algorithm: TokenAlgorithm) -> Self {
        match algorithm {
            TokenAlgorithm::RS256 => Self::RS256,
            TokenAlgorithm::ES256 => Self::ES256,
            TokenAlgorithm::EdDsa => Self::EdDSA,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The keys of RFC 7517 (appendix A.1) and RFC 8037 (appendix A.2).
    fn jwk(kty: &str) -> Value {
        match kty {
            "EC" => json!({
                "kty": "EC", "crv": "P-256",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            }),
            "OKP" => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
            }
            _ => {
                json!({ "kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4", "e": "AQAB" })
            }
        }
    }

    fn with(kty: &str, name: &str, value: Value) -> Option<TokenAlgorithm> {
        let mut jwk = jwk(kty);
        jwk[name] = value;
        key(&jwk).map(|key| key.algorithm)
    }

    #[test]
    fn a_key_is_for_the_one_algorithm_of_its_kind() {
        for (kty, algorithm) in
            [("EC", TokenAlgorithm::ES256), ("OKP", TokenAlgorithm::EdDsa), ("RSA", TokenAlgorithm::RS256)]
        {
            assert_eq!(key(&jwk(kty)).map(|key| (key.algorithm, key.id)), Some((algorithm, None)));
            assert_eq!(with(kty, "use", json!("sig")), Some(algorithm));
            assert_eq!(with(kty, "key_ops", json!(["sign", "verify"])), Some(algorithm));
            let named = json!(algorithm);
            assert_eq!(with(kty, "alg", named), Some(algorithm));
        }
        assert_eq!(with("OKP", "alg", json!("Ed25519")), Some(TokenAlgorithm::EdDsa));
    }

    #[test]
    fn a_key_that_is_for_something_else_verifies_nothing() {
        for kty in ["EC", "OKP", "RSA"] {
            assert_eq!(with(kty, "use", json!("enc")), None, "{kty}");
            assert_eq!(with(kty, "key_ops", json!(["encrypt", "sign"])), None, "{kty}");
            assert_eq!(with(kty, "key_ops", json!([])), None, "{kty}");
            for other in ["RS512", "PS256", "ES384", "HS256", "none"] {
                assert_eq!(with(kty, "alg", json!(other)), None, "{kty} {other}");
            }
            assert_eq!(with(kty, "kty", json!("oct")), None, "{kty}");
        }
        assert_eq!(with("EC", "crv", json!("P-384")), None);
        assert_eq!(with("OKP", "crv", json!("X25519")), None);
        assert_eq!(with("EC", "x", json!(7)), None);
        assert_eq!(with("RSA", "n", json!("not base64url!")), None);
    }
}
