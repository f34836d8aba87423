//! DPoP proofs (RFC 9449) of actors whose credential is bound to a key.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use ward::clock::Clock;

use crate::{Answer, Server, SigningKey};

/// A key pair of a client, with the client's knowledge of the server.
pub struct Prover {
    pub key: SigningKey,
    /// The URL that the client uses for the server, without a slash at the end.
    pub base: String,
    clock: Clock,
    nonce: Mutex<Option<String>>,
}

impl Prover {
    /// A client with a new key of this algorithm.
    pub fn new(server: &Server, algorithm: &str) -> Self {
        Self {
            key: SigningKey::new(algorithm, None),
            base: server.url(),
            clock: server.clock.clone(),
            nonce: Mutex::default(),
        }
    }

    /// The public key, without the members that a proof does not need.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.key.jwk();
        jwk.as_object_mut().expect("an object").shift_remove("use");
        jwk
    }

    /// The thumbprint of the key (RFC 7638).
    pub fn jkt(&self) -> String {
        let mut jwk = self.jwk();
        jwk.sort_all_objects();
        hashed(jwk.to_string().as_bytes())
    }

    /// The header of this client's proofs.
    pub fn header(&self) -> Value {
        json!({ "typ": "dpop+jwt", "alg": self.key.algorithm(), "jwk": self.jwk() })
    }

    /// The claims of a valid proof for one request.
    pub fn claims(&self, method: &str, path: &str, credential: &str) -> Value {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let mut claims = json!({
            "jti": format!("proof-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            "htm": method,
            "htu": format!("{}{path}", self.base),
            "iat": self.clock.now().micros() / 1_000_000,
            "ath": hashed(credential.as_bytes()),
        });
        if let Some(nonce) = &*self.nonce.lock() {
            claims["nonce"] = json!(nonce);
        }
        claims
    }

    /// A valid proof for one request.
    pub fn proof(&self, method: &str, path: &str, credential: &str) -> String {
        self.key.sign(&self.header(), &self.claims(method, path, credential))
    }

    /// Keeps the nonce that an answer has, as clients do.
    pub fn note(&self, answer: &Answer) {
        if !answer.header("dpop-nonce").is_empty() {
            *self.nonce.lock() = Some(answer.header("dpop-nonce").to_owned());
        }
    }
}

/// The SHA-256 of these bytes in base64url.
fn hashed(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}
