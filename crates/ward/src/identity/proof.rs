//! Proofs of possession: DPoP (RFC 9449), read and checked without a query.
//!
//! [`DpopProof::read`] checks everything that costs next to nothing. The signature is checked separately, once the credential is
//! known. So a caller without a valid credential cannot make Ward verify signatures.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::Url;
use ward_db::Timestamp;

use super::public_key::{PublicKey, Thumbprint};
use super::token::{decode, moment};

/// The longest proof, bytes: room for a key and a signature of RSA with 4096 bits.
const LONGEST: usize = 4096;
/// The longest accepted `jti` (the id of a proof), bytes.
const LONGEST_ID: usize = 256;
/// The greatest accepted difference between a proof's `iat` and Ward's clock.
const WINDOW: Duration = Duration::from_mins(1);
/// The greatest difference between the clocks of two replicas for which no proof is accepted twice.
const CLOCKS_DIFFER: Duration = Duration::from_mins(1);

/// The request that a proof must be about.
pub struct ProvenRequest<'r> {
    pub method: &'r str,
    /// The URLs by which clients may know the target, each as [`canonical`] writes it.
    pub urls: &'r [String],
    /// The whole text of the credential, whose hash is `ath`.
    pub credential: &'r [u8],
    pub now: Timestamp,
}

/// The JOSE header of a proof (RFC 9449, section 4.2).
#[derive(Deserialize)]
struct ProofHeader {
    typ: String,
    alg: String,
    jwk: Map<String, Value>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct ProofClaims {
    jti: String,
    htm: String,
    htu: String,
    iat: f64,
    ath: String,
    nonce: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// A proof whose claims fit its request. Its signature is not verified yet.
pub struct DpopProof {
    key: PublicKey,
    algorithm: Algorithm,
    signed: String,
    signature: String,
    /// The nonce in the proof, which is whatever the client wrote.
    pub nonce: Option<String>,
    pub used: ProofUse,
}

/// One proof, by which a second use is recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofUse {
    /// A hash of the key and the proof's `jti`.
    pub id: [u8; 32],
    /// The timestamp from which no replica accepts the proof because of its age.
    pub kept_until: Timestamp,
}

impl DpopProof {
    /// Reads the value of a `DPoP` header (RFC 9449, section 4.3). The error completes "The proof is not valid: …".
    pub fn read(text: &str, request: &ProvenRequest<'_>) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("it has more than 4096 bytes.");
        }
        let form = "it is not a signed JSON Web Token with the required members.";
        let (signed, signature) = text.rsplit_once('.').ok_or(form)?;
        let (header, claims) = signed.split_once('.').ok_or(form)?;
        let header: ProofHeader = decode(header).ok_or(form)?;
        let claims: ProofClaims = decode(claims).ok_or(form)?;
        if header.typ != "dpop+jwt" {
            return Err("its `typ` is not `dpop+jwt`.");
        }
        if header.crit.is_some() {
            return Err("its `crit` asks for an extension.");
        }
        let key =
            PublicKey::read(&header.jwk).map_err(|_| "its `jwk` is not a public key that is accepted.")?;
        let algorithm = key.algorithm(&header.alg);
        let algorithm = algorithm.ok_or("its `alg` is not accepted, or does not fit its `jwk`.")?;
        if !(1..=LONGEST_ID).contains(&claims.jti.len()) {
            return Err("its `jti` must have 1 to 256 bytes.");
        }
        if claims.htm != request.method {
            return Err("its `htm` is not the method of this request.");
        }
        if !canonical(&claims.htu).is_some_and(|url| request.urls.contains(&url)) {
            return Err("its `htu` is not the URL of this request.");
        }
        let issued = moment(claims.iat).ok_or("its `iat` is not a time.")?;
        if request.now.micros().abs_diff(issued.micros()) > micros(WINDOW) {
            return Err("its `iat` differs by more than 60 seconds from the time of this server.");
        }
        let ended = |end: f64| moment(end).is_none_or(|end| end.saturating_add(WINDOW) <= request.now);
        let begins_later =
            |from: f64| moment(from).is_none_or(|from| request.now.saturating_add(WINDOW) < from);
        if claims.exp.is_some_and(ended) || claims.nbf.is_some_and(begins_later) {
            return Err("its `exp` or `nbf` excludes the present time.");
        }
        if claims.ath != URL_SAFE_NO_PAD.encode(Sha256::digest(request.credential)) {
            return Err("its `ath` is not the hash of the credential.");
        }
        let mut id = Sha256::new_with_prefix(key.thumbprint.as_bytes());
        id.update(&claims.jti);
        let kept_until = issued.saturating_add(WINDOW).saturating_add(CLOCKS_DIFFER);
        Ok(Self {
            key,
            algorithm,
            signed: signed.to_owned(),
            signature: signature.to_owned(),
            nonce: claims.nonce,
            used: ProofUse { id: id.finalize().into(), kept_until },
        })
    }

    /// The thumbprint of the key that the proof names.
    pub const fn thumbprint(&self) -> Thumbprint {
        self.key.thumbprint
    }

    /// Verifies the signature by the key that the proof names.
    pub fn is_signed(&self) -> bool {
        self.key.verifies(self.algorithm, &self.signed, &self.signature)
    }
}

/// Proofs that are remembered to refuse a replay without a write.
const RECENT: usize = 65_536;

/// The last proofs that this server accepted. A thief who replays one again and again causes no writes. The database decides
/// about all others.
pub struct RecentProofs(Cache<[u8; 32], ()>);

impl Default for RecentProofs {
    fn default() -> Self {
        Self(Cache::new(RECENT))
    }
}

impl RecentProofs {
    /// Remembers a proof. `false` if it is remembered already.
    pub fn note(&self, used: &ProofUse) -> bool {
        let new = self.0.get(&used.id).is_none();
        if new {
            self.0.insert(used.id, ());
        }
        new
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Writes a URL without query and fragment, so that equal ones have equal texts (RFC 3986, sections 6.2.2 and 6.2.3; RFC 9449,
/// section 4.3). `None`: it is no URL of HTTP.
pub fn canonical(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    Some(format!("{}://{host}:{port}{}", url.scheme(), canonical_path(url.path())))
}

/// Decodes unreserved characters, and writes all other escapes in capitals.
fn canonical_path(path: &str) -> String {
    let mut parts = path.split('%');
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.get(..2).filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                written.push(char::from(byte));
                written.push_str(&part[2..]);
            }
            Some(byte) => {
                let _ = write!(written, "%{byte:02X}");
                written.push_str(&part[2..]);
            }
            None => {
                written.push('%');
                written.push_str(part);
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_urls_have_one_text() {
        let same = |one: &str, other: &str| assert_eq!(canonical(one), canonical(other), "{one} {other}");
        same("https://ward.example.com/v1/me", "HTTPS://Ward.EXAMPLE.com:443/v1/me");
        same("http://ward.example.com", "http://ward.example.com:80/");
        same("https://ward.example.com/v1/me", "https://ward.example.com/v1/me?limit=1#here");
        same("https://ward.example.com/v1/a/../me", "https://ward.example.com/v1/me");
        same("https://ward.example.com/v1/calls/CA%7e%2f%41", "https://ward.example.com/v1/calls/CA~%2FA");
        same("http://[::1]:8080/v1/me", "http://[0:0::1]:8080/v1/me");
        let differ = |one: &str, other: &str| assert_ne!(canonical(one), canonical(other), "{one} {other}");
        differ("https://ward.example.com/v1/me", "http://ward.example.com:443/v1/me");
        differ("https://ward.example.com/v1/me", "https://ward.example.com:8443/v1/me");
        differ("https://ward.example.com/v1/me", "https://ward.example.com/v1/me/");
        differ("https://ward.example.com/v1/me", "https://ward.example.com/V1/me");
        differ("https://ward.example.com/v1/calls/a%2Fb", "https://ward.example.com/v1/calls/a/b");
        differ("https://ward.example.com/v1/me", "https://ward.example.com./v1/me");
        for none in [
            "",
            "/v1/me",
            "ftp://ward.example.com/v1/me",
            "https://a@ward.example.com/v1/me",
            "https://:b@ward.example.com/",
        ] {
            assert_eq!(canonical(none), None, "{none}");
        }
        assert_eq!(canonical("http://a/%zz%+1%4%").as_deref(), Some("http://a:80/%zz%+1%4%"));
        // An escape may stand before a character of several bytes.
        assert_eq!(canonical_path("%é%41"), "%éA");
    }
}
