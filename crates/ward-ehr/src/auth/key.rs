//! Private keys from tenants, in the forms that vendors' consoles and tools write.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use zeroize::Zeroizing;

use super::Algorithm;

/// The maximum length of a private key's text, in bytes. An RSA key of 4,096 bits takes 3,300 in PEM and
/// 3,600 as a JWK.
pub const LONGEST_KEY: usize = 8192;
/// The allowed sizes of an RSA key, in bits. Each doubling makes a signature six times as costly.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

pub enum PrivateKey {
    Rsa(rsa::KeyPair),
    P384(EcdsaKeyPair),
}

/// The reason why a text is not a usable private key, as a sentence that does not repeat the text.
pub type Unusable = &'static str;

const NOT_RSA: Unusable =
    "the private key is not an RSA key of 2048 to 4096 bits, in PEM (PKCS #8 or PKCS #1) or as a JWK";
const NOT_P384: Unusable = "the private key is not a P-384 key, in PEM (PKCS #8 or SEC1) or as a JWK";
const OTHER_CURVE: Unusable = "the private key is on another curve than P-384, the only one that ES384 uses";

/// Parses a key. A `kid` beside the key is returned too.
pub fn parse(algorithm: Algorithm, text: &str) -> Result<(PrivateKey, Option<String>), Unusable> {
    let wrong = if algorithm.is_rsa() { NOT_RSA } else { NOT_P384 };
    if text.len() > LONGEST_KEY {
        return Err("the private key is longer than 8,192 bytes");
    }
    let text = unwrapped(text);
    if text.starts_with('{') {
        if let Some((pem, kid)) = of_service_account(text) {
            return parse(algorithm, &pem).map(|(key, _)| (key, kid));
        }
        return of_jwk(algorithm, text, wrong);
    }
    if text.contains("ENCRYPTED") {
        return Err("the private key is encrypted; give it without its passphrase");
    }
    let text = Zeroizing::new(mended(text));
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong)?;
    let key = match (algorithm.is_rsa(), &der) {
        (true, PrivateKeyDer::Pkcs8(der)) => {
            rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok().map(PrivateKey::Rsa)
        }
        (true, PrivateKeyDer::Pkcs1(der)) => {
            rsa::KeyPair::from_der(der.secret_pkcs1_der()).ok().map(PrivateKey::Rsa)
        }
        (false, der) => {
            if OTHER_CURVES.into_iter().any(|other| on_curve(other, der).is_some()) {
                return Err(OTHER_CURVE);
            }
            on_curve(&ECDSA_P384_SHA384_FIXED_SIGNING, der).map(PrivateKey::P384)
        }
        _ => None,
    };
    Ok((key.and_then(PrivateKey::of_bounded_size).ok_or(wrong)?, None))
}

/// Curves that are common elsewhere. They are tried only to give a better reason.
const OTHER_CURVES: [&EcdsaSigningAlgorithm; 3] =
    [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P256K1_SHA256_FIXED_SIGNING];

/// An elliptic-curve key, if it is on the curve of `signing`.
fn on_curve(signing: &'static EcdsaSigningAlgorithm, der: &PrivateKeyDer<'_>) -> Option<EcdsaKeyPair> {
    match der {
        PrivateKeyDer::Pkcs8(der) => EcdsaKeyPair::from_pkcs8(signing, der.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Sec1(der) => EcdsaKeyPair::from_private_key_der(signing, der.secret_sec1_der()).ok(),
        _ => None,
    }
}

/// The text without the byte order mark of an editor, and without the quotes of a configuration file.
fn unwrapped(text: &str) -> &str {
    let text = text.trim().trim_start_matches('\u{feff}').trim();
    let quoted = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    quoted('"').or_else(|| quoted('\'')).map_or(text, str::trim)
}

/// Repairs a PEM text whose line ends became `\n` or were lost, or whose lines are indented. These things happen to
/// keys in JSON, YAML and environment variables.
fn mended(pem: &str) -> String {
    let text = pem.replace("\\r", "").replace("\\n", "\n").replace('\r', "");
    if text.trim().contains('\n') {
        return text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    }
    // The text is one line: the markers get lines of their own, and the parser ignores white space between
    // them.
    text.replace("-----BEGIN", "\n-----BEGIN")
        .replace("KEY-----", "KEY-----\n")
        .replace("-----END", "\n-----END")
}

impl PrivateKey {
    fn of_bounded_size(self) -> Option<Self> {
        let fits = match &self {
            Self::Rsa(key) => RSA_BITS.contains(&(key.public_modulus_len() * 8)),
            Self::P384(_) => true,
        };
        fits.then_some(self)
    }

    /// The signature of a message in the format of JWS (RFC 7518 sections 3.3 and 3.4).
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding =
                    if algorithm == Algorithm::Rs256 { &RSA_PKCS1_SHA256 } else { &RSA_PKCS1_SHA384 };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Self::P384(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
        }
    }
}

/// The key in the file that Google's console writes for a service account (AIP-4112), and its id.
fn of_service_account(text: &str) -> Option<(Zeroizing<String>, Option<String>)> {
    let file: Value = serde_json::from_str(text).ok()?;
    let pem = file["private_key"].as_str().filter(|pem| !pem.starts_with('{'))?;
    Some((Zeroizing::new(pem.to_owned()), file["private_key_id"].as_str().map(str::to_owned)))
}

/// A key as a JWK (RFC 7517). Of a set, it is the first private key of the right type whose members let it sign.
fn of_jwk(
    algorithm: Algorithm,
    text: &str,
    wrong: Unusable,
) -> Result<(PrivateKey, Option<String>), Unusable> {
    let jwk: Value = serde_json::from_str(text).map_err(|_| wrong)?;
    let keys = match jwk["keys"].as_array() {
        Some(keys) => keys.iter().collect(),
        None => vec![&jwk],
    };
    let wanted = if algorithm.is_rsa() { "RSA" } else { "EC" };
    let mut refused = None;
    for jwk in keys.into_iter().filter(|jwk| jwk["kty"] == wanted && jwk["d"].is_string()) {
        match other_purpose(algorithm, jwk) {
            Some(reason) => {
                refused.get_or_insert(reason);
            }
            None => return numbers_of_jwk(algorithm, jwk).ok_or(wrong),
        }
    }
    Err(refused.unwrap_or(wrong))
}

/// The member of a JWK that declares another purpose than signatures of this algorithm (RFC 7517, sections 4.2 to 4.4),
/// as a sentence.
fn other_purpose(algorithm: Algorithm, jwk: &Value) -> Option<Unusable> {
    let given = |name: &str| Some(&jwk[name]).filter(|member| !member.is_null());
    let signs = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "sign"));
    if given("use").is_some_and(|purpose| purpose != "sig") {
        return Some("the JWK's member use is not \"sig\", so the key is not for signatures");
    }
    if given("key_ops").is_some_and(|ops| !signs(ops)) {
        return Some("the JWK's member key_ops does not contain \"sign\", so the key does not sign");
    }
    if given("alg").is_some_and(|declared| declared != algorithm.name()) {
        return Some(
            "the JWK's member alg names another algorithm than assertion_algorithm, which is RS384 by default",
        );
    }
    let other_curve = !algorithm.is_rsa() && jwk["crv"] != "P-384";
    other_curve.then_some("the JWK's member crv is not \"P-384\", the only curve that ES384 uses")
}

fn numbers_of_jwk(algorithm: Algorithm, jwk: &Value) -> Option<(PrivateKey, Option<String>)> {
    let number = |name: &str| Some(Zeroizing::new(URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok()?));
    let key = if algorithm.is_rsa() {
        let mut der = Zeroizing::new(Vec::new());
        write_integer(&mut der, &[0]);
        for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
            write_integer(&mut der, &number(name)?);
        }
        PrivateKey::Rsa(rsa::KeyPair::from_der(&sequence(&der)).ok()?)
    } else {
        let public = [&[4][..], &number("x")?, &number("y")?].concat();
        let alg = &ECDSA_P384_SHA384_FIXED_SIGNING;
        PrivateKey::P384(EcdsaKeyPair::from_private_key_and_public_key(alg, &number("d")?, &public).ok()?)
    };
    let kid = jwk["kid"].as_str().map(str::to_owned);
    Some((key.of_bounded_size()?, kid))
}

/// Appends an unsigned number as a DER INTEGER (X.690 section 8.3).
fn write_integer(der: &mut Vec<u8>, number: &[u8]) {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len().saturating_sub(1));
    let number = &number[first..];
    let sign = number.first().is_none_or(|byte| byte & 0x80 != 0);
    der.push(2);
    write_length(der, number.len() + usize::from(sign));
    if sign {
        der.push(0);
    }
    der.extend_from_slice(number);
}

fn sequence(content: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut der = Zeroizing::new(vec![0x30]);
    write_length(&mut der, content.len());
    der.extend_from_slice(content);
    der
}

/// Appends a DER length (X.690 section 8.1.3). Keys are shorter than 64 KiB.
fn write_length(der: &mut Vec<u8>, length: usize) {
    let bytes = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    match length {
        0..=127 => der.push(bytes[3]),
        128..=255 => der.extend([0x81, bytes[3]]),
        _ => der.extend([0x82, bytes[2], bytes[3]]),
    }
}
