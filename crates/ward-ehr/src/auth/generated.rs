//! New key pairs. The private half is for Ward's vault, the public half for a JWK set (RFC 7517).

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Algorithm;
use crate::{Failure, Secret};

/// The size of generated RSA keys. Every vendor's document that names a size names this one as the least.
const SIZE: KeySize = KeySize::Rsa2048;

/// A new key pair, whose private half never leaves Ward.
#[derive(Debug)]
pub struct KeyPair {
    /// The private half: PKCS #8 in PEM, as [`super::Signer::new`] takes it.
    pub private: Secret,
    /// The public half as a JWK with `kid`, `alg` and `use`.
    pub public: Value,
    /// The key's id: the thumbprint of the public half (RFC 7638), so that no two keys share one.
    pub kid: String,
}

impl KeyPair {
    /// Generates a key pair for this algorithm. An RSA key takes up to seconds of CPU time.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Failure> {
        let (private, mut public) = if algorithm.is_rsa() { rsa() } else { p384() }
            .ok_or_else(|| Failure::misconfigured("the cryptographic library generated no key"))?;
        // RFC 7638 hashes the required members in the order of their names, which is how they are written here.
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(public.to_string().as_bytes()));
        public["kid"] = json!(kid);
        public["alg"] = json!(algorithm.name());
        public["use"] = json!("sig");
        Ok(Self { private: pem(&private), public, kid })
    }
}

/// A private key as PKCS #8, and the required members of its public half as a JWK.
type Pair = (Zeroizing<Vec<u8>>, Value);

fn rsa() -> Option<Pair> {
    let pair = rsa::KeyPair::generate(SIZE).ok()?;
    let private = Zeroizing::new(pair.as_der().ok().map(|der: Pkcs8V1Der<'_>| der.as_ref().to_vec())?);
    let (content, _) = element(pair.public_key().as_ref())?;
    let (modulus, rest) = element(content)?;
    let (exponent, _) = element(rest)?;
    Some((private, json!({ "e": unsigned(exponent), "kty": "RSA", "n": unsigned(modulus) })))
}

fn p384() -> Option<Pair> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).ok()?;
    let private = Zeroizing::new(document.as_ref().to_vec());
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &private).ok()?;
    // An uncompressed point: 4, and both coordinates (SEC 1, section 2.3.3).
    let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(48)?;
    let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Some((private, json!({ "crv": "P-384", "kty": "EC", "x": coordinate(x), "y": coordinate(y) })))
}

/// The content of the DER element at the start of `der`, and the bytes after it (X.690 section 8.1).
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = usize::from(*der.get(1)?);
    let (length, at) = match first {
        0..=127 => (first, 2),
        0x81 => (usize::from(*der.get(2)?), 3),
        0x82 => (usize::from(*der.get(2)?) << 8 | usize::from(*der.get(3)?), 4),
        _ => return None,
    };
    der.get(at..)?.split_at_checked(length)
}

/// A positive INTEGER as a JWK has it (RFC 7518 section 6.3.1): base64url without leading zeros.
fn unsigned(number: &[u8]) -> String {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    URL_SAFE_NO_PAD.encode(&number[zeros..])
}

/// The key as PEM (RFC 7468). Its lines have 64 characters.
fn pem(der: &[u8]) -> Secret {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(text.len() * 2));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    for (index, char) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(char);
    }
    pem.push_str("\n-----END PRIVATE KEY-----\n");
    Secret::new(pem.as_str())
}
