//! Signed statements: JWTs with a private key (RFC 7519, RFC 7523).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};
use uuid::Uuid;

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
    const fn of_jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Rs384 => jsonwebtoken::Algorithm::RS384,
            Self::Es384 => jsonwebtoken::Algorithm::ES384,
        }
    }
}

/// A private key that has been seen to sign.
#[derive(Clone)]
pub struct Signer {
    algorithm: Algorithm,
    pem: Secret,
    key: EncodingKey,
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
    /// A signer with this PEM (PKCS #8; RSA keys also as PKCS #1).
    ///
    /// # Errors
    /// When the text is no private key, or none for this algorithm. The sentence does not repeat it.
    pub fn new(algorithm: Algorithm, pem: Secret, kid: Option<String>) -> Result<Self, Failure> {
        let wrong = || {
            Failure::misconfigured(match algorithm {
                Algorithm::Rs256 | Algorithm::Rs384 => {
                    "the private key is not an RSA key in PEM, of 2048 bits or more"
                }
                Algorithm::Es384 => "the private key is not a P-384 key in PKCS #8 PEM",
            })
        };
        let bytes = pem.expose().as_bytes();
        let key = match algorithm {
            Algorithm::Rs256 | Algorithm::Rs384 => EncodingKey::from_rsa_pem(bytes),
            Algorithm::Es384 => EncodingKey::from_ec_pem(bytes),
        }
        .map_err(|_| wrong())?;
        let signer = Self { algorithm, pem, key, kid };
        // Only signing tells whether the key is one for this algorithm and whole.
        signer.sign(&json!({})).map_err(|_| wrong())?;
        Ok(signer)
    }

    /// What makes it this signer and no other.
    pub(super) fn parts(&self) -> [&str; 3] {
        let algorithm = match self.algorithm {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Es384 => "ES384",
        };
        [algorithm, self.pem.expose(), self.kid.as_deref().unwrap_or_default()]
    }

    fn sign(&self, claims: &Value) -> Result<String, Failure> {
        let mut header = Header::new(self.algorithm.of_jwt());
        header.kid.clone_from(&self.kid);
        jsonwebtoken::encode(&header, claims, &self.key)
            .map_err(|_| Failure::misconfigured("the private key cannot sign"))
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
