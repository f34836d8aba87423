//! A token issuer for tests on a loopback port: discovery, keys and userinfo, which tests can change.
//!
//! It can sign tokens that no real provider would sign. Another test shows that Ward works with a real
//! provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use ward::clock::Clock;
use ward::config::Config;
use ward::config::issuers::IssuerConfig;

use crate::{Actor, Server};

/// The audience of the test issuer's tokens.
pub const AUDIENCE: &str = "https://ward.test";

/// A key pair that signs an issuer's tokens.
pub struct SigningKey {
    /// The key's id in the key set, if it has one.
    pub id: Option<String>,
    pair: Pair,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Es384(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
    Ps256(RsaKeyPair),
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl SigningKey {
    /// Generates a key for this algorithm: `ES256`, `ES384`, `EdDSA`, `RS256` or `PS256`.
    ///
    /// # Panics
    ///
    /// The algorithm is another one.
    pub fn new(algorithm: &str, id: Option<&str>) -> Self {
        let pair = match algorithm {
            "ES256" => Pair::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")),
            "ES384" => Pair::Es384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key")),
            "EdDSA" => Pair::EdDsa(Ed25519KeyPair::generate().expect("a key")),
            "RS256" => Pair::Rs256(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")),
            "PS256" => Pair::Ps256(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")),
            other => panic!("no key for {other}"),
        };
        Self { id: id.map(str::to_owned), pair }
    }

    /// The algorithm's name in a token's header.
    pub const fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Es256(_) => "ES256",
            Pair::Es384(_) => "ES384",
            Pair::EdDsa(_) => "EdDSA",
            Pair::Rs256(_) => "RS256",
            Pair::Ps256(_) => "PS256",
        }
    }

    /// The public half, in the format of a key set.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y) })
            }
            Pair::Es384(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
                json!({ "kty": "EC", "crv": "P-384", "x": b64(x), "y": b64(y) })
            }
            Pair::EdDsa(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()) }),
            Pair::Rs256(pair) | Pair::Ps256(pair) => {
                let public = pair.public_key();
                let n = public.modulus().big_endian_without_leading_zero();
                let e = public.exponent().big_endian_without_leading_zero();
                json!({ "kty": "RSA", "n": b64(n), "e": b64(e) })
            }
        };
        jwk["use"] = json!("sig");
        if let Some(id) = &self.id {
            jwk["kid"] = json!(id);
        }
        jwk
    }

    /// The header of this key's tokens.
    pub fn header(&self) -> Value {
        let mut header = json!({ "typ": "at+jwt", "alg": self.algorithm() });
        if let Some(id) = &self.id {
            header["kid"] = json!(id);
        }
        header
    }

    /// A signed token with this header and these claims, valid or not.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Es256(pair) | Pair::Es384(pair) => {
                pair.sign(&random, signed.as_bytes()).expect("a signature").as_ref().to_vec()
            }
            Pair::EdDsa(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
            Pair::Rs256(pair) | Pair::Ps256(pair) => {
                let encoding: &dyn RsaEncoding = match &self.pair {
                    Pair::Ps256(_) => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, signed.as_bytes(), &mut signature).expect("a signature");
                signature
            }
        };
        format!("{signed}.{}", b64(signature))
    }
}

/// The answers that the issuer currently serves.
struct IssuerState {
    url: String,
    keys: Mutex<Vec<Arc<SigningKey>>>,
    /// Fields that replace or extend the discovery document; null removes a field.
    amended: Mutex<Value>,
    down: Mutex<bool>,
    delay: Mutex<Duration>,
    held: watch::Sender<bool>,
    userinfo: Mutex<(StatusCode, String)>,
    discoveries: AtomicU64,
}

/// An issuer on a loopback port, for as long as this value lives.
pub struct TestIssuer {
    served: Arc<IssuerState>,
    task: JoinHandle<()>,
    clock: Clock,
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestIssuer {
    /// Starts an issuer with one ES256 key, whose id is `first`.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let served = Arc::new(IssuerState {
            url,
            keys: Mutex::new(vec![Arc::new(SigningKey::new("ES256", Some("first")))]),
            amended: Mutex::new(json!({})),
            down: Mutex::default(),
            delay: Mutex::default(),
            held: watch::Sender::default(),
            userinfo: Mutex::new((StatusCode::UNAUTHORIZED, String::new())),
            discoveries: AtomicU64::new(0),
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/moved", get(async || Redirect::temporary("/keys")))
            .route("/large", get(large))
            .route("/userinfo", get(userinfo))
            .with_state(served.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Self { served, task, clock: Clock::default() }
    }

    /// The settings for Ward to accept this issuer.
    pub fn config(&self) -> IssuerConfig {
        IssuerConfig::new(self.url(), AUDIENCE)
    }

    /// The issuer's identifier, which is its base URL.
    pub fn url(&self) -> &str {
        &self.served.url
    }

    /// Makes the issuer use this clock.
    pub fn follow(&mut self, clock: &Clock) {
        self.clock = clock.clone();
    }

    /// The key that currently signs tokens.
    pub fn key(&self) -> Arc<SigningKey> {
        self.served.keys.lock().last().expect("a key").clone()
    }

    /// Replaces the key set; the last key signs.
    pub fn serve_keys(&self, keys: Vec<SigningKey>) {
        *self.served.keys.lock() = keys.into_iter().map(Arc::new).collect();
    }

    /// Makes the issuer answer 500 to every request, or ends that.
    pub fn set_down(&self, down: bool) {
        *self.served.down.lock() = down;
    }

    /// Delays every later answer by this time.
    pub fn set_delay(&self, delay: Duration) {
        *self.served.delay.lock() = delay;
    }

    /// Stops all answers until [`Self::let_go`].
    pub fn hold(&self) {
        self.served.held.send_replace(true);
    }

    /// Sends the held answers, and answers normally again.
    pub fn let_go(&self) {
        self.served.held.send_replace(false);
    }

    /// Replaces or extends fields of the discovery document; null removes a field. The keys are at `/keys`,
    /// behind a redirect at `/moved`, and beside a mebibyte of padding at `/large`.
    pub fn amend_discovery(&self, more: Value) {
        *self.served.amended.lock() = more;
    }

    /// Makes the discovery document claim to be of this issuer.
    pub fn claim_to_be(&self, issuer: &str) {
        self.amend_discovery(json!({ "issuer": issuer }));
    }

    /// Sets the claims that userinfo returns; `None` makes it answer 401.
    pub fn set_userinfo(&self, claims: Option<Value>) {
        match claims {
            Some(claims) => self.answer_userinfo(200, &claims.to_string()),
            None => self.answer_userinfo(401, ""),
        }
    }

    /// Sets the answer of userinfo, valid or not.
    ///
    /// # Panics
    ///
    /// The status is not an HTTP status.
    pub fn answer_userinfo(&self, status: u16, body: &str) {
        *self.served.userinfo.lock() = (StatusCode::from_u16(status).expect("a status"), body.to_owned());
    }

    /// The number of requests for the discovery document.
    pub fn discoveries(&self) -> u64 {
        self.served.discoveries.load(Ordering::SeqCst)
    }

    /// Seconds since 1970 by the issuer's clock, plus `more`.
    pub fn seconds(&self, more: i64) -> i64 {
        self.clock.now().micros() / 1_000_000 + more
    }

    /// The claims of a valid token for a person.
    pub fn claims(&self, subject: &str) -> Value {
        json!({
            "iss": self.url(), "aud": AUDIENCE, "sub": subject, "client_id": "app", "name": format!("{subject} the tester"),
            "iat": self.seconds(0), "exp": self.seconds(300),
        })
    }

    /// A valid token for a person.
    pub fn token(&self, subject: &str) -> String {
        self.sign(&self.claims(subject))
    }

    /// A valid token with some claims added or replaced.
    pub fn token_with(&self, subject: &str, more: &Value) -> String {
        let mut claims = self.claims(subject);
        for (name, value) in more.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        self.sign(&claims)
    }

    /// A valid token for a machine.
    pub fn machine(&self, subject: &str) -> String {
        self.token_with(subject, &json!({ "client_id": subject }))
    }

    /// A correctly signed token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let key = self.key();
        key.sign(&key.header(), claims)
    }
}

impl Server {
    /// A server with an issuer of its own, whose tokens it accepts.
    pub async fn with_issuer() -> (Self, TestIssuer) {
        Self::with_issuer_and(|_| {}).await
    }

    /// The same with further settings of the test's choice.
    pub async fn with_issuer_and(choose: impl FnOnce(&mut Config)) -> (Self, TestIssuer) {
        let mut issuer = TestIssuer::start().await;
        let server = Self::with(|config| {
            config.issuers = vec![issuer.config()];
            choose(config);
        });
        let server = server.await;
        issuer.follow(&server.clock);
        (server, issuer)
    }

    pub fn person(&self, issuer: &TestIssuer, subject: &str) -> Actor {
        self.bearing(issuer.token(subject))
    }
}

impl IssuerState {
    async fn up(&self) -> Result<(), Response> {
        let delay = *self.delay.lock();
        tokio::time::sleep(delay).await;
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        if *self.down.lock() { Err(StatusCode::INTERNAL_SERVER_ERROR.into_response()) } else { Ok(()) }
    }
}

fn answer(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn discovery(State(served): State<Arc<IssuerState>>) -> Result<Response, Response> {
    served.discoveries.fetch_add(1, Ordering::SeqCst);
    served.up().await?;
    let (keys, userinfo) = (format!("{}/keys", served.url), format!("{}/userinfo", served.url));
    let mut document = json!({ "issuer": served.url, "jwks_uri": keys, "userinfo_endpoint": userinfo });
    for (name, value) in served.amended.lock().as_object().expect("an object") {
        document[name] = value.clone();
    }
    Ok(answer(&document))
}

fn key_set(served: &IssuerState) -> Value {
    let keys: Vec<Value> = served.keys.lock().iter().map(|key| key.jwk()).collect();
    // A key set may contain keys of unknown kinds, which a client must skip.
    let strangers =
        [json!({ "kty": "EC", "crv": "P-521", "kid": "first" }), json!({ "kty": "oct", "k": "AAAA" })];
    json!({ "keys": strangers.into_iter().chain(keys).collect::<Vec<_>>() })
}

async fn keys(State(served): State<Arc<IssuerState>>) -> Result<Response, Response> {
    served.up().await?;
    Ok(answer(&key_set(&served)))
}

async fn large(State(served): State<Arc<IssuerState>>) -> Result<Response, Response> {
    served.up().await?;
    let mut document = key_set(&served);
    document["padding"] = json!("0".repeat(1024 * 1024));
    Ok(answer(&document))
}

async fn userinfo(State(served): State<Arc<IssuerState>>) -> Result<Response, Response> {
    served.up().await?;
    let (status, body) = served.userinfo.lock().clone();
    Ok((status, [(CONTENT_TYPE, "application/json"), (LOCATION, "/keys")], body).into_response())
}
