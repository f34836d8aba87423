//! Signed statements: JWTs with a private key (RFC 7519, RFC 7523).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::key::{self, PrivateKey};
use crate::{Failure, Secret};

/// How long a statement is good for. SMART allows five minutes at most; a minute is left for clocks that run ahead.
const LIFETIME: Duration = Duration::from_mins(4);

/// How a statement is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256. Only for Google, which takes neither of the others.
    Rs256,
    /// RSA, PKCS #1 v1.5, SHA-384.
    Rs384,
    /// ECDSA on P-384, SHA-384.
    Es384,
}

impl Algorithm {
    /// Its name in a statement's header (RFC 7518 section 3.1).
    const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Es384 => "ES384",
        }
    }

    pub(super) const fn is_rsa(self) -> bool {
        matches!(self, Self::Rs256 | Self::Rs384)
    }
}

/// A private key that has been seen to sign. It is parsed once; clones share it.
#[derive(Clone)]
pub struct Signer {
    algorithm: Algorithm,
    key: Arc<PrivateKey>,
    /// Tells this key from every other without showing it.
    digest: String,
    kid: Option<String>,
}

// By hand, because a derived one would print the key.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer with this key: PEM (PKCS #8, PKCS #1 or SEC1) or a JWK, whose `kid` counts where none is given. Parsing and
    /// the first signature take milliseconds.
    ///
    /// # Errors
    /// When the text is no private key of a permitted size, or none for this algorithm. The sentence does not repeat it.
    pub fn new(algorithm: Algorithm, text: &Secret, kid: Option<String>) -> Result<Self, Failure> {
        let (key, own_kid) = key::parse(algorithm, text.expose()).map_err(Failure::misconfigured)?;
        let digest = format!("{:x?}", Sha256::digest(text.expose().as_bytes()).as_slice());
        let signer = Self { algorithm, key: Arc::new(key), digest, kid: kid.or(own_kid) };
        // Only signing tells whether the key is whole.
        signer.sign(&json!({}))?;
        Ok(signer)
    }

    /// What makes it this signer and no other.
    pub(super) fn parts(&self) -> [&str; 3] {
        [self.algorithm.name(), &self.digest, self.kid.as_deref().unwrap_or_default()]
    }

    /// A signed statement in the compact form (RFC 7515 section 7.1).
    fn sign(&self, claims: &Value) -> Result<String, Failure> {
        let mut header = json!({ "typ": "JWT", "alg": self.algorithm.name() });
        if let Some(kid) = &self.kid {
            header["kid"] = json!(kid);
        }
        let encoded = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let message =
            format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = self.key.sign(self.algorithm, message.as_bytes());
        let signature = signature.ok_or_else(|| Failure::misconfigured("the private key cannot sign"))?;
        Ok(format!("{message}.{}", encoded(&signature)))
    }

    /// A statement that is good for four minutes and for one use: its `jti` is never given twice.
    pub(super) fn statement(
        &self,
        issuer: &str,
        subject: &str,
        audience: &str,
        more: Map<String, Value>,
    ) -> Result<Secret, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut claims = json!({
            "iss": issuer,
            "sub": subject,
            "aud": audience,
            "jti": Uuid::new_v4(),
            "iat": now,
            "exp": now + LIFETIME.as_secs(),
        });
        if let Value::Object(fields) = &mut claims {
            fields.extend(more);
        }
        self.sign(&claims).map(Secret::new)
    }
}
