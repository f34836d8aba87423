//! Signed assertions: JWTs with a private key (RFC 7519, RFC 7523).

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::key::{self, PrivateKey};
use crate::{Failure, Secret};

/// The lifetime of an assertion. SMART allows at most five minutes; one minute is left for clocks that run
/// ahead.
const LIFETIME: Duration = Duration::from_mins(4);

/// The algorithm that signs an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256. It is only for Google, which accepts neither of the others.
    Rs256,
    /// RSA with PKCS #1 v1.5 and SHA-384 (RFC 7518 section 3.3).
    Rs384,
    /// ECDSA on P-384 with SHA-384 (RFC 7518 section 3.4).
    Es384,
}

impl Algorithm {
    /// Every algorithm that an assertion can have.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Rs384, Self::Es384];

    /// The algorithm with this name in an assertion's header; `None` for another name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The algorithm's name in an assertion's header (RFC 7518 section 3.1).
    pub const fn name(self) -> &'static str {
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

/// A private key that has made a signature. It is parsed once, and clones share it.
#[derive(Clone)]
pub struct Signer {
    algorithm: Algorithm,
    key: Arc<PrivateKey>,
    /// Identifies the key without revealing it.
    digest: String,
    kid: Option<String>,
    jku: Option<String>,
}

// Implemented by hand, because a derived implementation would print the key.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// Parses a key in PEM (PKCS #8, PKCS #1 or SEC1), as a JWK, or as the file of a service account of
    /// Google. The `kid` of the last two is used if `kid` is `None`.
    /// Parsing and the first signature take milliseconds.
    ///
    /// # Errors
    /// The text is not a private key of an allowed size, or not one for this algorithm. The message does not
    /// repeat the text.
    pub fn new(algorithm: Algorithm, text: &Secret, kid: Option<String>) -> Result<Self, Failure> {
        let (key, own_kid) = key::parse(algorithm, text.expose()).map_err(Failure::misconfigured)?;
        let digest = format!("{:x?}", Sha256::digest(text.expose().as_bytes()).as_slice());
        let signer = Self { algorithm, key: Arc::new(key), digest, kid: kid.or(own_kid), jku: None };
        // Only a signature shows whether the key is complete.
        signer.sign(&json!({}))?;
        Ok(signer)
    }

    /// Names the JWK set of the key in each assertion's header (RFC 7515 section 4.1.2).
    #[must_use]
    pub fn with_jku(self, jku: Option<String>) -> Self {
        Self { jku, ..self }
    }

    /// The parts that identify this signer.
    pub(super) fn parts(&self) -> [&str; 4] {
        let (kid, jku) = (self.kid.as_deref(), self.jku.as_deref());
        [self.algorithm.name(), &self.digest, kid.unwrap_or_default(), jku.unwrap_or_default()]
    }

    /// A signed assertion in the compact form (RFC 7515 section 7.1).
    fn sign(&self, claims: &Value) -> Result<String, Failure> {
        let mut header = json!({ "typ": "JWT", "alg": self.algorithm.name() });
        if let Some(kid) = &self.kid {
            header["kid"] = json!(kid);
        }
        if let Some(jku) = &self.jku {
            header["jku"] = json!(jku);
        }
        let encoded = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let message =
            format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = self.key.sign(self.algorithm, message.as_bytes());
        let signature = signature.ok_or_else(|| Failure::misconfigured("the private key cannot sign"))?;
        Ok(format!("{message}.{}", encoded(&signature)))
    }

    /// An assertion that is valid for four minutes and one use: its `jti` is never used again.
    pub(super) fn statement(
        &self,
        issuer: &str,
        subject: Option<&str>,
        audience: &str,
        more: Map<String, Value>,
    ) -> Result<Secret, Failure> {
        let now = crate::ambient::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut claims = json!({
            "iss": issuer,
            "aud": audience,
            "jti": crate::ambient::id(),
            "iat": now,
            "exp": now + LIFETIME.as_secs(),
        });
        if let Some(subject) = subject {
            claims["sub"] = json!(subject);
        }
        if let Value::Object(fields) = &mut claims {
            fields.extend(more);
        }
        self.sign(&claims).map(Secret::new)
    }
}
