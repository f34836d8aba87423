//! The text of an API key: `ward_<key id, 22><secret, 43><CRC-32, 6>`, base62 at fixed width.
//!
//! The fixed prefix serves secret scanners, and the public id the look-up. The secret has 256 random bits.
//! The checksum covers id and secret, so a mistyped key costs no query.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const PREFIX: &str = "ward_";
const KEY_ID: usize = 22;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
/// The length of a key's text in bytes.
pub const LENGTH: usize = PREFIX.len() + KEY_ID + SECRET + CHECKSUM;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The public part of a key: 22 base62 characters, kept inline because every request has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID]);

impl KeyId {
    /// Reads a key id, if `text` has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; KEY_ID] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }

    /// A key id that no key has: 22 base62 digits can exceed the 128 bits from which ids are drawn, and
    /// this one does.
    pub const fn none() -> Self {
        Self([b'z'; KEY_ID])
    }

    /// The 22 letters and digits of the id.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The stored part of a secret: the SHA-256 of its text. A secret of 256 random bits needs no slow hash.
pub type SecretHash = [u8; 32];

/// A presented bearer: the id of a key, and the hash of the secret that came with it.
#[derive(Clone, Copy)]
pub struct Presented {
    /// The public part, which lists and logs may show.
    pub key_id: KeyId,
    pub hash: SecretHash,
}

impl Presented {
    /// Reads a bearer. `None` for a text that cannot be a key of Ward's: wrong prefix, length, alphabet or
    /// checksum.
    pub fn parse(bearer: &[u8]) -> Option<Self> {
        let body = bearer.strip_prefix(PREFIX.as_bytes())?;
        if bearer.len() != LENGTH || !body.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        let (covered, checksum) = body.split_at(KEY_ID + SECRET);
        let mut expected = [0; CHECKSUM];
        base62(&crc32fast::hash(covered).to_be_bytes(), &mut expected);
        if checksum != expected {
            return None;
        }
        let (key_id, secret) = covered.split_at(KEY_ID);
        Some(Self { key_id: KeyId(key_id.try_into().ok()?), hash: Sha256::digest(secret).into() })
    }
}

/// Every key's text in these bytes, with its position. A text without the right checksum is none.
pub fn find_all(bytes: &[u8]) -> impl Iterator<Item = (usize, Presented)> {
    let starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(PREFIX.as_bytes()));
    starts.filter_map(|at| Some((at, Presented::parse(bytes.get(at..at + LENGTH)?)?)))
}

/// The text with every key in it cut to its public part, followed by `…`.
pub fn without_secrets(text: &str) -> String {
    let (mut rest, mut shown) = (text, String::with_capacity(text.len()));
    while let Some((at, found)) = find_all(rest.as_bytes()).next() {
        shown.push_str(&rest[..at]);
        shown.push_str(PREFIX);
        shown.push_str(found.key_id.as_str());
        shown.push('…');
        rest = &rest[at + LENGTH..];
    }
    shown.push_str(rest);
    shown
}

/// A new key with its secret, which is shown once.
pub struct NewSecret {
    /// The text of the key, secret included.
    pub text: Zeroizing<String>,
    /// The public part of the key.
    pub key_id: KeyId,
    pub hash: SecretHash,
}

impl NewSecret {
    /// Generates a secret with a new key id.
    pub fn generate() -> Result<Self, crate::random::Error> {
        let mut bits = [0; 16];
        crate::random::fill(&mut bits)?;
        let mut key_id = [0; KEY_ID];
        base62(&bits, &mut key_id);
        Self::for_key(KeyId(key_id))
    }

    /// Generates a secret for a key that keeps its id.
    pub fn for_key(key_id: KeyId) -> Result<Self, crate::random::Error> {
        let mut bits = Zeroizing::new([0; 32]);
        crate::random::fill(&mut *bits)?;
        let mut secret = Zeroizing::new([0; SECRET]);
        base62(&*bits, &mut *secret);

        let mut covered = Zeroizing::new([0; KEY_ID + SECRET]);
        covered[..KEY_ID].copy_from_slice(&key_id.0);
        covered[KEY_ID..].copy_from_slice(&*secret);
        let mut checksum = [0; CHECKSUM];
        base62(&crc32fast::hash(&*covered).to_be_bytes(), &mut checksum);

        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str(PREFIX);
        text.extend(covered.iter().chain(&checksum).map(|byte| char::from(*byte)));
        Ok(Self { text, key_id, hash: Sha256::digest(*secret).into() })
    }
}

/// Writes a big-endian number in base62, padded with zeros on the left.
fn base62(number: &[u8], into: &mut [u8]) {
    let mut rest = Zeroizing::new([0_u8; 32]);
    let rest = &mut rest[..number.len()];
    rest.copy_from_slice(number);
    for digit in into.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in rest.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_reads_back() {
        let key = NewSecret::generate().unwrap();
        assert_eq!(key.text.len(), 76);
        let presented = Presented::parse(key.text.as_bytes()).unwrap();
        assert_eq!(presented.key_id, key.key_id);
        assert_eq!(presented.hash, key.hash);
    }

    #[test]
    fn any_one_wrong_character_is_noticed() {
        let key = NewSecret::generate().unwrap();
        for index in 0..key.text.len() {
            let mut wrong = key.text.as_bytes().to_vec();
            wrong[index] = if wrong[index] == b'x' { b'y' } else { b'x' };
            assert!(Presented::parse(&wrong).is_none(), "position {index}");
        }
        assert!(Presented::parse(&key.text.as_bytes()[..75]).is_none());
        assert!(Presented::parse(b"").is_none());
    }

    #[test]
    fn keys_are_found_between_other_texts() {
        let (one, two) = (NewSecret::generate().unwrap(), NewSecret::generate().unwrap());
        let text = format!("ward_ key={} \"ward_{}\" ward_{}", &*one.text, &*two.text, &one.text[5..70]);
        let found: Vec<_> = find_all(text.as_bytes()).map(|(at, key)| (at, key.key_id)).collect();
        assert_eq!(found, [(10, one.key_id), (93, two.key_id)]);
    }

    #[test]
    fn base62_is_fixed_width_and_ordered() {
        let mut zero = [0; 6];
        base62(&0_u32.to_be_bytes(), &mut zero);
        assert_eq!(&zero, b"000000");
        let mut most = [0; 6];
        base62(&u32::MAX.to_be_bytes(), &mut most);
        assert_eq!(&most, b"4gfFC3");
        let mut key_id = [0; 22];
        base62(&u128::MAX.to_be_bytes(), &mut key_id);
        assert!(key_id < KeyId::none().0);
    }

    #[test]
    fn generated_keys_differ() {
        let keys: std::collections::HashSet<_> =
            (0..100).map(|_| NewSecret::generate().unwrap().key_id).collect();
        assert_eq!(keys.len(), 100);
    }
}
