//! Private keys in the forms in which tenants have them, and the limits on their size.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

use aws_lc_rs::encoding::{
    AsBigEndian as _, AsDer as _, EcPrivateKeyBin, EcPrivateKeyRfc5915Der, Pkcs8V1Der,
};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use ward_ehr::Secret;
use ward_ehr::auth::{Algorithm, Signer};

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn accepts(algorithm: Algorithm, text: &str) -> Result<(), String> {
    let signer = Signer::new(algorithm, &Secret::new(text), None);
    signer.map(|_| ()).map_err(|failure| failure.message)
}

/// The value of the DER element at the start of `der`, and the bytes after it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, at) = match der[1] {
        0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        0x81 => (usize::from(der[2]), 3),
        short => (usize::from(short), 2),
    };
    der[at..].split_at(length)
}

/// The PKCS #1 key inside a PKCS #8 key (RFC 5958): it follows the version and the algorithm.
fn pkcs1(pkcs8: &[u8]) -> Vec<u8> {
    let (info, _) = element(pkcs8);
    let (_, rest) = element(info);
    let (_, rest) = element(rest);
    element(rest).0.to_vec()
}

fn rsa_jwk(pkcs1: &[u8]) -> Value {
    let (mut rest, mut jwk) = (element(pkcs1).0, json!({ "kty": "RSA", "kid": "from the key" }));
    for name in ["version", "n", "e", "d", "p", "q", "dp", "dq", "qi"] {
        let (number, after) = element(rest);
        let first = number.iter().position(|byte| *byte != 0).unwrap_or(0);
        jwk[name] = json!(URL_SAFE_NO_PAD.encode(&number[first..]));
        rest = after;
    }
    jwk
}

#[test]
fn an_rsa_key_is_taken_in_every_form_that_it_comes_in() {
    for size in [KeySize::Rsa2048, KeySize::Rsa4096] {
        let pair = KeyPair::generate(size).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let inner = pkcs1(der.as_ref());
        let plain = pem("PRIVATE KEY", der.as_ref());
        for text in [
            plain.clone(),
            pem("RSA PRIVATE KEY", &inner),
            plain.replace('\n', "\\n"),
            plain.replace('\n', "\\r\\n"),
            plain.replace('\n', "\r\n"),
            plain.replace('\n', " "),
            plain.replace('\n', ""),
            format!("\n  {plain}\n\n"),
            format!("\u{feff}{plain}"),
            format!("    {}", plain.replace('\n', "\n    ")),
            format!("\"{}\"", plain.replace('\n', "\\n")),
            format!("'{plain}'\n"),
            format!("\u{feff}{}", rsa_jwk(&inner)),
            rsa_jwk(&inner).to_string(),
            json!({ "keys": [{ "kty": "EC" }, rsa_jwk(&inner)] }).to_string(),
            json!({ "type": "service_account", "private_key_id": "1", "private_key": plain }).to_string(),
        ] {
            for algorithm in [Algorithm::Rs256, Algorithm::Rs384] {
                assert_eq!(accepts(algorithm, &text), Ok(()), "{}", &text[..40]);
            }
            assert!(accepts(Algorithm::Es384, &text).is_err());
        }
        let mut half = rsa_jwk(&inner);
        half.as_object_mut().unwrap().remove("p");
        assert!(accepts(Algorithm::Rs384, &half.to_string()).is_err(), "all of its numbers are needed");
    }
}

#[test]
fn a_key_on_p_384_is_taken_in_every_form_that_it_comes_in() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
    let number: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({ "kty": "EC", "crv": "P-384", "x": encoded(x), "y": encoded(y), "d": encoded(number.as_ref()) });
    let plain = pem("EC PRIVATE KEY", sec1.as_ref());
    // This is openssl's form: the curve comes first, in a block of its own.
    let with_curve = format!("{}{plain}", pem("EC PARAMETERS", &[6, 5, 0x2b, 0x81, 4, 0, 0x22]));
    for text in [
        plain.clone(),
        with_curve.clone(),
        plain.replace('\n', "\\n"),
        format!("\u{feff}{with_curve}"),
        format!("\t{}", with_curve.replace('\n', "\n\t")),
        format!("'{plain}'"),
        jwk.to_string(),
    ] {
        assert_eq!(accepts(Algorithm::Es384, &text), Ok(()), "{}", &text[..40]);
        assert!(accepts(Algorithm::Rs384, &text).is_err());
    }
    let mut other = jwk.clone();
    other["crv"] = json!("P-256");
    assert!(accepts(Algorithm::Es384, &other.to_string()).unwrap_err().contains("member crv "));
    let mut public = jwk;
    public.as_object_mut().unwrap().remove("d");
    assert!(accepts(Algorithm::Es384, &public.to_string()).is_err());
}

#[test]
fn a_jwk_signs_only_what_it_is_declared_for() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let plain = rsa_jwk(&pkcs1(der.as_ref()));
    let with = |name: &str, value: Value| {
        let mut jwk = plain.clone();
        jwk[name] = value;
        jwk
    };
    for (name, value) in [
        ("use", json!("sig")),
        ("use", Value::Null),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!(["verify", "sign"])),
        ("alg", json!("RS384")),
    ] {
        assert_eq!(
            accepts(Algorithm::Rs384, &with(name, value.clone()).to_string()),
            Ok(()),
            "{name} {value}"
        );
    }
    for (name, value) in [
        ("use", json!("enc")),
        ("use", json!(1)),
        ("key_ops", json!([])),
        ("key_ops", json!(["verify"])),
        ("key_ops", json!(["decrypt", "unwrapKey"])),
        ("key_ops", json!("sign")),
        ("alg", json!("RS256")),
        ("alg", json!("PS384")),
        ("alg", json!("RSA-OAEP")),
    ] {
        let refused = accepts(Algorithm::Rs384, &with(name, value.clone()).to_string()).unwrap_err();
        assert!(refused.contains(&format!("member {name} ")), "{name} {value}: {refused}");
    }
    assert_eq!(accepts(Algorithm::Rs256, &with("alg", json!("RS256")).to_string()), Ok(()));
    // A set names one key for each purpose.
    let set = json!({ "keys": [with("use", json!("enc")), with("use", json!("sig"))] });
    assert_eq!(accepts(Algorithm::Rs384, &set.to_string()), Ok(()));
    let set = json!({ "keys": [with("use", json!("enc")), with("alg", json!("RS256"))] });
    assert!(accepts(Algorithm::Rs384, &set.to_string()).unwrap_err().contains("member use "));
}

#[test]
fn a_key_on_another_curve_is_named_as_such() {
    for other in [
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &ECDSA_P521_SHA512_FIXED_SIGNING,
        &ECDSA_P256K1_SHA256_FIXED_SIGNING,
    ] {
        let pair = EcdsaKeyPair::generate(other).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap();
        for text in [pem("EC PRIVATE KEY", sec1.as_ref()), pem("PRIVATE KEY", pkcs8.as_ref())] {
            let refused = accepts(Algorithm::Es384, &text).unwrap_err();
            assert!(refused.contains("another curve than P-384"), "{other:?}: {refused}");
            assert!(accepts(Algorithm::Rs384, &text).unwrap_err().contains("not an RSA key"));
        }
    }
}

#[test]
fn a_generated_key_signs_and_has_the_thumbprint_of_its_public_half() {
    for (algorithm, members) in [
        (Algorithm::Es384, &["crv", "kty", "x", "y"][..]),
        (Algorithm::Rs384, &["e", "kty", "n"]),
        (Algorithm::Rs256, &["e", "kty", "n"]),
    ] {
        let pair = ward_ehr::auth::KeyPair::generate(algorithm).unwrap();
        assert_eq!(accepts(algorithm, pair.private.expose()), Ok(()));
        assert_eq!(pair.public["alg"], algorithm.name());
        let required: Vec<String> =
            members.iter().map(|name| format!("\"{name}\":{}", pair.public[*name])).collect();
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            format!("{{{}}}", required.join(",")).as_bytes(),
        );
        assert_eq!(pair.public["kid"], URL_SAFE_NO_PAD.encode(digest));
        assert_eq!(pair.public["kid"], pair.kid.as_str());
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }
}

#[test]
fn a_key_has_a_largest_size() {
    let refused = |text: &str| accepts(Algorithm::Rs384, text).unwrap_err();
    assert!(refused(include_str!("rsa-8192.pem")).contains("2048 to 4096 bits"));
    assert!(refused(&format!("{}{}", include_str!("rsa-8192.pem"), " ".repeat(8192))).contains("longer"));
    let locked = pem("ENCRYPTED PRIVATE KEY", &[0x30, 0]);
    assert!(refused(&locked).contains("passphrase"));
    for nothing in ["", "{}", "{\"kty\":\"RSA\"}", "no key", "-----BEGIN PRIVATE KEY-----"] {
        assert!(refused(nothing).contains("not an RSA key"), "{nothing}");
    }
}
