//! The public keys whose possession clients prove, and the thumbprints of these keys.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The members of a JWK that only private and symmetric keys have (RFC 7518, sections 6.2.2, 6.3.2 and 6.4.1).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// The sizes of RSA keys, bytes. A larger one would make each signature dear to verify.
const RSA: std::ops::RangeInclusive<usize> = 256..=512;
/// The most bytes of an RSA key's public exponent, for the same reason.
const LARGEST_EXPONENT: usize = 4;

const NO_PUBLIC_KEY: &str = "must have no private part and no secret: a public key is enough";
const OTHER_KIND: &str =
    "must be a public key: EC on P-256 or P-384, OKP on Ed25519, or RSA with 2048 to 4096 bits";

/// The SHA-256 thumbprint of a public key (RFC 7638), which a `jkt` has as 43 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// Reads a thumbprint. `None` for a text that is not one.
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Thumbprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// The accepted algorithms with their kinds of keys (RFC 7518, section 3.1; RFC 8037; RFC 9864). All are asymmetric.
const ALGORITHMS: [(&str, Algorithm, Kind); 6] = [
    ("ES256", Algorithm::ES256, Kind::P256),
    ("ES384", Algorithm::ES384, Kind::P384),
    ("EdDSA", Algorithm::EdDSA, Kind::Ed25519),
    ("Ed25519", Algorithm::EdDSA, Kind::Ed25519),
    ("PS256", Algorithm::PS256, Kind::Rsa),
    ("RS256", Algorithm::RS256, Kind::Rsa),
];

/// A public key of a kind that Ward verifies.
pub struct PublicKey {
    pub thumbprint: Thumbprint,
    kind: Kind,
    decoding: DecodingKey,
}

impl PublicKey {
    /// Reads a JWK. The error completes the sentence "The JWK …".
    pub fn read(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        if PRIVATE.iter().any(|member| jwk.contains_key(*member)) {
            return Err(NO_PUBLIC_KEY);
        }
        Self::of(jwk).ok_or(OTHER_KIND)
    }

    fn of(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        // Each number has exactly one accepted text, so that a key has exactly one thumbprint.
        let coordinate = |name: &str, length: usize| {
            text(name).filter(|text| URL_SAFE_NO_PAD.decode(text).is_ok_and(|it| it.len() == length))
        };
        let number = |name: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text(name)?).ok()?;
            Some((text(name)?, bytes.len())).filter(|_| bytes.first().is_some_and(|first| *first != 0))
        };
        let curve = |kind, curve: &str, length| {
            let (x, y) = (coordinate("x", length)?, coordinate("y", length)?);
            let canonical = format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#);
            Some((kind, canonical, DecodingKey::from_ec_components(x, y).ok()?))
        };
        let (kind, canonical, decoding) = match (text("kty")?, text("crv")) {
            ("EC", Some("P-256")) => curve(Kind::P256, "P-256", 32)?,
            ("EC", Some("P-384")) => curve(Kind::P384, "P-384", 48)?,
            ("OKP", Some("Ed25519")) => {
                let x = coordinate("x", 32)?;
                let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
                (Kind::Ed25519, canonical, DecodingKey::from_ed_components(x).ok()?)
            }
            ("RSA", _) => {
                let ((n, modulus), (e, exponent)) = (number("n")?, number("e")?);
                if !RSA.contains(&modulus) || exponent > LARGEST_EXPONENT {
                    return None;
                }
                let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
                (Kind::Rsa, canonical, DecodingKey::from_rsa_components(n, e).ok()?)
            }
            _ => return None,
        };
        Some(Self { thumbprint: Thumbprint(Sha256::digest(canonical).into()), kind, decoding })
    }

    /// The algorithm of this name, if it is for keys of this kind.
    pub fn algorithm(&self, name: &str) -> Option<Algorithm> {
        let found = ALGORITHMS.iter().find(|(known, _, kind)| *known == name && *kind == self.kind)?;
        Some(found.1)
    }

    /// Whether the key's holder has signed this text.
    pub fn verifies(&self, algorithm: Algorithm, signed: &str, signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.decoding, algorithm).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn thumbprint(jwk: &Value) -> Option<String> {
        let read = PublicKey::read(jwk.as_object().unwrap());
        read.ok().map(|key| key.thumbprint.to_string())
    }

    #[test]
    fn thumbprints_are_those_of_the_standards() {
        // RFC 9449, sections 4.1 and 6.1.
        let ec = json!({
            "kty": "EC", "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        });
        assert_eq!(thumbprint(&ec).unwrap(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        // RFC 8037, appendix A.3.
        let okp =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        assert_eq!(thumbprint(&okp).unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        // RFC 7638, section 3.1.
        let rsa = json!({
            "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        });
        assert_eq!(thumbprint(&rsa).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_key_has_one_spelling_and_no_private_part() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let okp = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        let with = |name: &str, value: Value| {
            let mut jwk = okp.clone();
            jwk[name] = value;
            jwk
        };
        assert!(thumbprint(&okp).is_some());
        // The last character has unused bits.
        assert_eq!(thumbprint(&with("x", json!(format!("{}p", &x[..42])))), None);
        assert_eq!(thumbprint(&with("x", json!(format!("{x}=")))), None);
        assert_eq!(thumbprint(&with("x", json!(&x[..40]))), None);
        assert_eq!(thumbprint(&with("crv", json!("X25519"))), None);
        assert_eq!(thumbprint(&json!({ "kty": "oct", "k": "AAAA" })), None);
        for member in PRIVATE {
            let private = PublicKey::read(with(member, json!("AAAA")).as_object().unwrap());
            assert_eq!(private.err(), Some(NO_PUBLIC_KEY), "{member}");
        }
        let rsa = |bytes: usize, e: &[u8]| {
            let n = URL_SAFE_NO_PAD.encode(vec![0x81; bytes]);
            thumbprint(&json!({ "kty": "RSA", "n": n, "e": URL_SAFE_NO_PAD.encode(e) })).is_some()
        };
        assert!(rsa(256, &[1, 0, 1]) && rsa(512, &[3]));
        assert!(!rsa(255, &[1, 0, 1]) && !rsa(513, &[1, 0, 1]));
        assert!(!rsa(256, &[1, 0, 0, 0, 1]) && !rsa(256, &[0, 1, 0, 1]) && !rsa(256, &[]));
    }

    #[test]
    fn an_algorithm_is_for_its_kind_of_key() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        let key = PublicKey::read(jwk.as_object().unwrap()).unwrap_or_else(|_| panic!("a key"));
        assert_eq!(key.algorithm("EdDSA"), Some(Algorithm::EdDSA));
        assert_eq!(key.algorithm("Ed25519"), Some(Algorithm::EdDSA));
        for other in ["ES256", "ES384", "RS256", "PS256", "HS256", "none", "eddsa", ""] {
            assert_eq!(key.algorithm(other), None, "{other}");
        }
    }

    #[test]
    fn a_thumbprint_is_43_characters() {
        let text = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        assert_eq!(Thumbprint::parse(text).map(|read| read.to_string()).as_deref(), Some(text));
        for wrong in ["", "x", &text[1..], "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4J", &format!("{text}=")]
        {
            assert_eq!(Thumbprint::parse(wrong), None, "{wrong}");
        }
    }
}
