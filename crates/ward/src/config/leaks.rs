//! `leak_report_keys`: the public keys whose reports of leaked API keys Ward accepts.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::value::ParseResult;

/// Bounds the list, because every report searches it.
const MOST_KEYS: usize = 32;
/// The maximum length of an identifier, in bytes.
const LONGEST_IDENTIFIER: usize = 256;

/// A public key that signs reports of leaked keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeakReportKey {
    /// The name under which a report refers to the key.
    pub identifier: String,
    pem: String,
    point: Vec<u8>,
}

impl LeakReportKey {
    /// Reads an ECDSA key on P-256 from PEM (`PUBLIC KEY`, RFC 7468).
    pub fn new(identifier: &str, pem: &str) -> ParseResult<Self> {
        let fits = (1..=LONGEST_IDENTIFIER).contains(&identifier.len());
        if !fits || !identifier.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("key_identifier must be 1 to {LONGEST_IDENTIFIER} printable characters"));
        }
        let wrong = || "key must be an ECDSA public key on the curve P-256, in PEM".to_owned();
        let read = DecodingKey::from_ec_pem(pem.trim().as_bytes()).map_err(|_| wrong())?;
        let point = read.try_get_as_bytes().map_err(|_| wrong())?.to_vec();
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point).map_err(|_| wrong())?;
        Ok(Self { identifier: identifier.to_owned(), pem: pem.trim().to_owned(), point })
    }

    /// The key as a point of the curve (X9.62).
    pub fn point(&self) -> &[u8] {
        &self.point
    }
}

/// An entry in the form in which GitHub publishes its keys. GitHub's other fields have no meaning here.
#[derive(Serialize, Deserialize)]
struct KeyEntry {
    key_identifier: String,
    key: String,
}

/// Reads a JSON list of keys, or GitHub's answer that has the list as `public_keys`.
pub(super) fn leak_report_keys(text: &str) -> ParseResult<Vec<LeakReportKey>> {
    let form = || {
        "must be a JSON list, such as [{\"key_identifier\": \"90a4…\", \"key\": \"-----BEGIN PUBLIC KEY-----\\n…\"}]"
            .to_owned()
    };
    let mut given: Value = serde_json::from_str(text).map_err(|_| form())?;
    let list = given.get_mut("public_keys").map(Value::take).unwrap_or(given);
    let entries: Vec<Value> = serde_json::from_value(list).map_err(|_| form())?;
    if entries.len() > MOST_KEYS {
        return Err(format!("has more than {MOST_KEYS} keys"));
    }
    let mut read: Vec<LeakReportKey> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let entry: Result<KeyEntry, _> = serde_json::from_value(entry);
        let key = entry.map_err(|error| error.to_string());
        let key = key.and_then(|entry| LeakReportKey::new(entry.key_identifier.trim(), &entry.key));
        let key = key.map_err(|why| format!("is wrong: key {}: {why}", index + 1))?;
        if read.iter().any(|known| known.identifier == key.identifier) {
            return Err(format!("names {} twice", key.identifier));
        }
        read.push(key);
    }
    Ok(read)
}

/// The JSON list that configures these keys; empty if there are none.
pub(super) fn show_leak_report_keys(keys: &[LeakReportKey]) -> String {
    let entries: Vec<KeyEntry> = keys
        .iter()
        .map(|key| KeyEntry { key_identifier: key.identifier.clone(), key: key.pem.clone() })
        .collect();
    if entries.is_empty() { String::new() } else { serde_json::to_string(&entries).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
    use serde_json::json;

    use super::*;

    fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        KeyPair::generate_for(algorithm).unwrap().public_key_pem()
    }

    #[test]
    fn the_published_form_and_a_list_read_back() {
        let keys = json!([
            { "key_identifier": "one", "key": pem(&PKCS_ECDSA_P256_SHA256), "is_current": true },
            { "key_identifier": "two", "key": pem(&PKCS_ECDSA_P256_SHA256), "is_current": false },
        ]);
        let read = leak_report_keys(&json!({ "public_keys": keys }).to_string()).unwrap();
        assert_eq!(read.iter().map(|key| &*key.identifier).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(leak_report_keys(&keys.to_string()), Ok(read.clone()));
        assert_eq!(leak_report_keys(&show_leak_report_keys(&read)), Ok(read));
        assert_eq!((leak_report_keys("[]"), show_leak_report_keys(&[])), (Ok(Vec::new()), String::new()));
    }

    #[test]
    fn each_mistake_is_named() {
        let good = pem(&PKCS_ECDSA_P256_SHA256);
        let of = |identifier: &str, key: &str| json!({ "key_identifier": identifier, "key": key });
        for (given, expected) in [
            (json!("x"), "must be a JSON list"),
            (json!({ "keys": [] }), "must be a JSON list"),
            (json!([{ "key": good }]), "key 1: missing field `key_identifier`"),
            (json!([of("", &good)]), "key_identifier must be"),
            (json!([of("a b", &good)]), "key_identifier must be"),
            (json!([of("a", "no key")]), "key 1: key must be an ECDSA"),
            (json!([of("a", &pem(&PKCS_ECDSA_P384_SHA384))]), "key 1: key must be an ECDSA"),
            (json!([of("a", &good), of("a", &good)]), "names a twice"),
            (json!(vec![of("a", &good); MOST_KEYS + 1]), "has more than 32 keys"),
        ] {
            let why = leak_report_keys(&given.to_string()).unwrap_err();
            assert!(why.contains(expected), "{given}: {why}");
        }
    }
}
