//! The configured issuers and their signing keys: discovery, fetching, rotation and outages.
//!
//! Keys are fetched when they are first needed, anew when they have grown old, and when a token names one that is not
//! there. Whoever's key is known never waits for any of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use ward_db::Timestamp;

use crate::clock::Clock;
use crate::config::issuers::{IssuerConfig, TokenAlgorithm};

/// The longest time one document of an issuer may take.
const FETCH_TIME: Duration = Duration::from_secs(4);
/// The largest document that an issuer may send, bytes.
const LARGEST_DOCUMENT: usize = 512 * 1024;
/// How many keys of one issuer are kept: what a token without `kid` is tried against must stay short.
const MOST_KEYS: usize = 32;
/// How often a key that is not there may make Ward look again.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_mins(1);
/// How long a fetch that failed is not repeated.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Why an issuer's document cannot be had. For the log; names no token and no secret.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The client could not be made.
    #[error("no HTTP client: {0}")]
    Client(reqwest::Error),
    /// The issuer could not be reached or did not answer in time.
    #[error("{what}: {error}")]
    Unreachable {
        /// Which document.
        what: &'static str,
        /// What happened, without the URL.
        error: reqwest::Error,
    },
    /// It answered with something else.
    #[error("{what}: status {status}")]
    Status {
        /// Which document.
        what: &'static str,
        /// What it answered.
        status: u16,
    },
    /// It answered with something unusable.
    #[error("{what}: {problem}")]
    Unusable {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// An issuer's keys cannot be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// After how many seconds it is worth trying again.
    pub retry_after: u64,
}

/// One verification key.
pub struct Key {
    /// Its name, if it has one.
    pub id: Option<String>,
    /// The one algorithm that it is for.
    pub algorithm: TokenAlgorithm,
    /// The key itself.
    pub decoding: DecodingKey,
}

/// An issuer's keys as they were at one moment.
pub struct KeySet {
    /// The keys that can verify something.
    pub keys: Vec<Key>,
    /// Where the issuer tells about its users, if it does (`OpenID` Connect Core 1.0, section 5.3).
    pub userinfo: Option<String>,
    fetched_at: Timestamp,
    generation: u64,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// When a fetch last failed, if none has succeeded since.
    failed_at: Option<Timestamp>,
    /// When an unknown key last made Ward look again.
    looked_again_at: Option<Timestamp>,
    generation: u64,
}

/// One issuer and what is known of it.
pub struct Issuer {
    /// Its settings.
    pub config: IssuerConfig,
    /// Its identifier, shared by every token that is verified.
    pub name: Arc<str>,
    http: reqwest::Client,
    clock: Clock,
    state: Mutex<State>,
    /// Held while fetching, so that one fetch serves all who wait.
    turn: tokio::sync::Mutex<()>,
    refreshing: AtomicBool,
}

/// Every configured issuer.
pub struct Issuers {
    all: Vec<Arc<Issuer>>,
}

impl Issuers {
    /// Prepares the configured issuers and the cryptography that verifies their tokens. Fetches nothing yet.
    pub fn new(config: &[IssuerConfig], clock: &Clock) -> Result<Self, FetchError> {
        // Which provider the library finds by itself depends on what other crates ask of it, and a wrong guess panics
        // at the first token. It can be installed once per process; a second Ward in it finds it there.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        if config.is_empty() {
            return Ok(Self { all: Vec::new() });
        }
        // Proxies of the environment are not asked: who can set a variable must not see or change signing keys.
        // Redirects are not followed: the URLs that may be fetched are those that were checked.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_TIME)
            .connect_timeout(FETCH_TIME)
            .user_agent(concat!("ward/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(FetchError::Client)?;
        let issuer = |config: &IssuerConfig| {
            Arc::new(Issuer {
                name: Arc::from(config.issuer.as_str()),
                config: config.clone(),
                http: http.clone(),
                clock: clock.clone(),
                state: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
                refreshing: AtomicBool::new(false),
            })
        };
        Ok(Self { all: config.iter().map(issuer).collect() })
    }

    /// The issuer of this identifier. Compared character for character (`OpenID` Connect Core 1.0, section 3.1.3.7).
    pub fn named(&self, issuer: &str) -> Option<&Arc<Issuer>> {
        self.all.iter().find(|known| &*known.name == issuer)
    }

    /// Whether any issuer is configured.
    pub fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// Fetches the keys of all issuers that have none, so that the first caller need not wait. A failure is logged and
    /// tried again when a token comes.
    pub async fn warm(&self) {
        for issuer in &self.all {
            let _ = issuer.keys().await;
        }
    }
}

impl Issuer {
    /// The keys to verify with. Waits for a fetch only where there are none that may still be used.
    pub async fn keys(self: &Arc<Self>) -> Result<Arc<KeySet>, Unavailable> {
        let now = self.clock.now();
        let cached = self.state.lock().keys.clone();
        if let Some(keys) = cached {
            let age = age(keys.fetched_at, now);
            if age >= self.config.refresh {
                self.refresh_aside(keys.generation);
            }
            if age < self.config.outage.max(self.config.refresh) {
                return Ok(keys);
            }
            return self.fetch_after(keys.generation).await;
        }
        self.fetch_after(0).await
    }

    /// Keys newer than those in which a token's key was not found; `None` when it was looked for a moment ago already.
    pub async fn newer_keys(self: &Arc<Self>, than: &KeySet) -> Option<Arc<KeySet>> {
        let newer = |keys: &&Arc<KeySet>| keys.generation > than.generation;
        let looks = {
            let now = self.clock.now();
            let mut state = self.state.lock();
            // Somebody else may have fetched since.
            if let Some(keys) = state.keys.as_ref().filter(newer) {
                return Some(keys.clone());
            }
            let looks = state.looked_again_at.is_none_or(|last| age(last, now) >= UNKNOWN_KEY_PAUSE);
            if looks {
                state.looked_again_at = Some(now);
            }
            looks
        };
        if looks {
            return self.fetch_after(than.generation).await.ok();
        }
        // Who comes while somebody looks waits for what they find; if nobody does, this is at once.
        let _turn = self.turn.lock().await;
        self.state.lock().keys.as_ref().filter(newer).cloned()
    }

    /// Fetches beside the requests, unless somebody does so already.
    fn refresh_aside(self: &Arc<Self>, generation: u64) {
        if self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let issuer = self.clone();
        tokio::spawn(async move {
            let _ = issuer.fetch_after(generation).await;
            issuer.refreshing.store(false, Ordering::Release);
        });
    }

    /// Fetches the keys, unless newer ones than `generation` are there by the time it is this caller's turn.
    async fn fetch_after(&self, generation: u64) -> Result<Arc<KeySet>, Unavailable> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        {
            let state = self.state.lock();
            if let Some(keys) = state.keys.as_ref().filter(|keys| keys.generation > generation) {
                return Ok(keys.clone());
            }
            let since = state.failed_at.map(|failed| age(failed, now));
            if let Some(left) =
                since.and_then(|since| FAILURE_PAUSE.checked_sub(since)).filter(|it| !it.is_zero())
            {
                return Err(Unavailable { retry_after: left.as_secs().max(1) });
            }
        }
        let fetched = self.fetch(now).await;
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        metrics::counter!("ward_issuer_fetches_total", "issuer" => self.name.to_string(), "outcome" => outcome).increment(1);
        let mut state = self.state.lock();
        match fetched {
            Ok(mut keys) => {
                state.generation += 1;
                keys.generation = state.generation;
                let keys = Arc::new(keys);
                state.keys = Some(keys.clone());
                state.failed_at = None;
                Ok(keys)
            }
            Err(error) => {
                tracing::warn!(issuer = %self.name, %error, "the issuer's keys could not be fetched");
                state.failed_at = Some(now);
                Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() })
            }
        }
    }

    /// Discovery, then keys (`OpenID` Connect Discovery 1.0, section 4; RFC 7517, section 5).
    async fn fetch(&self, now: Timestamp) -> Result<KeySet, FetchError> {
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
        // Section 4.3: or whoever serves any page of the host could speak for the issuer.
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
        // An empty set is what a broken deployment serves. Keys that still verify are worth more.
        if keys.is_empty() {
            return Err(unusable(KEYS, "holds no key for signatures that are accepted"));
        }
        let userinfo = metadata.userinfo_endpoint.filter(|url| self.config.may_fetch(url));
        Ok(KeySet { keys, userinfo, fetched_at: now, generation: 0 })
    }

    /// What the issuer tells about the holder of this access token (`OpenID` Connect Core 1.0, section 5.3). `None`: it
    /// has no such endpoint.
    pub async fn userinfo(self: &Arc<Self>, token: &str) -> Result<Option<Value>, FetchError> {
        let keys =
            self.keys().await.map_err(|_| FetchError::Unusable { what: "userinfo", problem: "unknown" })?;
        match &keys.userinfo {
            Some(url) => self.document("userinfo", url, Some(token)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Fetches a JSON document, no larger than it may be.
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

/// How long ago `then` was; no time at all if a clock went back.
fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(now.micros() - then.micros()).unwrap_or(0))
}

/// A key of a key set, if it is for signatures that Ward verifies (RFC 7517, section 4; RFC 7518, section 6; RFC 8037,
/// section 2). Others are passed over, as section 5 of RFC 7517 asks.
fn key(jwk: &Value) -> Option<Key> {
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
    // A key that says it is for another algorithm is for that one only (RFC 7517, section 4.4). "Ed25519" is the name
    // that RFC 9864 gives to EdDSA on this curve.
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
