//! The configured issuers and their signing keys: discovery, fetching, rotation and outages.
//!
//! Keys are fetched when they are first needed, anew when they have grown old, and when a token names one that is not
//! there. Whoever's key is known never waits for any of that.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
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

impl FetchError {
    /// Whether the same request may do better later.
    const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Client(_) | Self::Unusable { .. } => false,
        }
    }
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
    generation: u64,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    generation: u64,
    /// When the fetch that brought the keys began.
    fetched: Last,
    /// When a fetch last failed, if none has succeeded since.
    failed: Last,
    /// When an unknown key last made Ward look again.
    looked_again: Last,
}

/// When something happened last. Where the clock has gone back behind it, it counts as now: or keys would be trusted, and
/// pauses last, until the clock is there again.
#[derive(Default)]
struct Last(Option<Timestamp>);

impl Last {
    fn age(&mut self, now: Timestamp) -> Option<Duration> {
        let at = self.0?.min(now);
        self.0 = Some(at);
        Some(Duration::from_micros((now.micros() - at.micros()).unsigned_abs()))
    }

    fn is_younger(&mut self, than: Duration, now: Timestamp) -> bool {
        self.age(now).is_some_and(|age| age < than)
    }
}

/// What a look for keys came to.
type Found = Result<Arc<KeySet>, Unavailable>;

/// Whether keys are wanted because a token names one that is not there, which is a reason once a minute only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    NoneOrOld,
    UnknownKey,
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
    turn: Arc<tokio::sync::Mutex<()>>,
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
                turn: Arc::default(),
            })
        };
        Ok(Self { all: config.iter().map(issuer).collect() })
    }

    /// The issuer of this identifier. Compared character for character (`OpenID` Connect Core 1.0, section 3.1.3.7).
    pub fn named(&self, issuer: &str) -> Option<&Arc<Issuer>> {
        self.all.iter().find(|known| &*known.name == issuer)
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Issuer>] {
        &self.all
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
    pub async fn keys(self: &Arc<Self>) -> Found {
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

    /// Keys newer than those in which a token's key was not found; `None` when it was looked for a moment ago already.
    pub async fn newer_keys(self: &Arc<Self>, than: &KeySet) -> Option<Arc<KeySet>> {
        self.fetch_after(than.generation, Reason::UnknownKey).await.ok()
    }

    /// Fetches beside the requests, unless somebody does so already.
    fn refresh_aside(self: &Arc<Self>, generation: u64) {
        if let Ok(turn) = self.turn.clone().try_lock_owned() {
            drop(self.begin(turn, generation, Reason::NoneOrOld));
        }
    }

    /// Fetches the keys, unless newer ones than `generation` are there by the time it is this caller's turn. Who comes
    /// while somebody fetches waits for what they find.
    async fn fetch_after(self: &Arc<Self>, generation: u64, reason: Reason) -> Found {
        let turn = self.turn.clone().lock_owned().await;
        match self.begin(turn, generation, reason) {
            Ok(fetching) => {
                fetching.await.unwrap_or(Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() }))
            }
            Err(found) => found,
        }
    }

    /// Begins a fetch, in a task of its own: whoever made Ward begin it may hang up or run out of time, and it is finished
    /// for the others all the same. `Err`: none is to be made, and this is what there is.
    fn begin(
        self: &Arc<Self>,
        turn: OwnedMutexGuard<()>,
        generation: u64,
        reason: Reason,
    ) -> Result<JoinHandle<Found>, Found> {
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

    async fn fetch_and_keep(&self, began: Timestamp) -> Found {
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
                tracing::warn!(issuer = %self.name, %error, "the issuer's keys could not be fetched");
                // The time after it: a fetch that took long would else be repeated at once by each who waited for it.
                state.failed = Last(Some(self.clock.now()));
                Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() })
            }
        }
    }

    /// Discovery, then keys (`OpenID` Connect Discovery 1.0, section 4; RFC 7517, section 5).
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
        Ok(KeySet { keys, userinfo, generation: 0 })
    }

    /// What the issuer tells about the holder of this access token (`OpenID` Connect Core 1.0, section 5.3). `None`: nothing
    /// that Ward can read. It has no such endpoint, or refuses a token that is for Ward alone, or signs what it tells.
    pub async fn userinfo(self: &Arc<Self>, token: &str) -> Result<Option<Value>, Unavailable> {
        let keys = self.keys().await?;
        let Some(url) = &keys.userinfo else { return Ok(None) };
        match self.document("userinfo", url, Some(token)).await {
            Ok(told) => Ok(Some(told)),
            Err(FetchError::Status { status: 401 | 403, .. }) => Ok(None),
            Err(error) => {
                tracing::warn!(issuer = %self.name, %error, "the issuer's userinfo could not be had");
                if error.may_pass() {
                    return Err(Unavailable { retry_after: FAILURE_PAUSE.as_secs() });
                }
                Ok(None)
            }
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
