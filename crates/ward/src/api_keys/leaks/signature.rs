//! The signature of a report: ECDSA on P-256 with SHA-256 over the body as it was sent (GitHub, "Secret scanning partner
//! program").

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;

use crate::config::LeakReportKey;
use crate::error::ApiError;
use crate::http::Request;

static IDENTIFIER: HeaderName = HeaderName::from_static("github-public-key-identifier");
static SIGNATURE: HeaderName = HeaderName::from_static("github-public-key-signature");

/// The claim that a request is signed, which only its body can prove.
pub struct ClaimedSignature {
    key: LeakReportKey,
    signature: Vec<u8>,
}

impl ClaimedSignature {
    /// Reads the headers. A key that is not configured is refused before the body is read.
    pub fn of(request: &Request) -> Result<Self, ApiError> {
        let text = |name| request.only_header(name).and_then(|value| value.to_str().ok());
        let identifier = text(&IDENTIFIER).ok_or_else(ApiError::callback_refused)?;
        let signature = text(&SIGNATURE).and_then(|text| STANDARD.decode(text).ok());
        let known = request.app.config.leak_report_keys.iter().find(|key| key.identifier == identifier);
        match (known, signature) {
            (Some(key), Some(signature)) => Ok(Self { key: key.clone(), signature }),
            _ => Err(ApiError::callback_refused()),
        }
    }

    /// The identifier of the key, which the audit records.
    pub fn identifier(&self) -> &str {
        &self.key.identifier
    }

    /// Whether the key signed these bytes.
    pub fn covers(&self, body: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.key.point())
            .verify(body, &self.signature)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, key and signature that GitHub published as an example of the protocol (github/docs, pull request 18776).
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9MJJHnMfn2+H4xL4YaPDA4RpJqUq\n\
        kCmRCBnYERxZanmcpzQSXs1X/AljlKkbJ8qpVIW4clayyef9gWhFbNHWAA==\n\
        -----END PUBLIC KEY-----\n";
    const BODY: &[u8] = br#"[{"token":"some_token","type":"some_type","url":"some_url"}]"#;
    const SIGNATURE: &str =
        "MEUCIQDKZokqnCjrRtw0tni+2Ltvl/uiMJ1EGumEsp1BsNr32AIgQY1YXD2nlj+XNfGK4rBfkMJ1JDOQcYXxa2sY8FNkrKc=";

    #[test]
    fn the_published_example_verifies_and_nothing_else_does() {
        let key = LeakReportKey::new("90a421169f0a", KEY).unwrap();
        let claimed = ClaimedSignature { key, signature: STANDARD.decode(SIGNATURE).unwrap() };
        assert!(claimed.covers(BODY));
        for at in 0..BODY.len() {
            let mut other = BODY.to_vec();
            other[at] ^= 1;
            assert!(!claimed.covers(&other), "byte {at}");
        }
        for at in 0..claimed.signature.len() {
            let mut signature = claimed.signature.clone();
            signature[at] ^= 1;
            let other = ClaimedSignature { key: claimed.key.clone(), signature };
            assert!(!other.covers(BODY), "byte {at} of the signature");
        }
        let empty = ClaimedSignature { key: claimed.key, signature: Vec::new() };
        assert!(!empty.covers(BODY));
    }
}
