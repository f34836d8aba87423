//! The text of an API key.

use std::sync::LazyLock;

use proptest::prelude::*;
use regex::Regex;
use sha2::{Digest as _, Sha256};
use ward::api_keys::secret::{NewSecret, Presented};

static FORM: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^ward_([0-9A-Za-z]{22})([0-9A-Za-z]{43})([0-9A-Za-z]{6})$").unwrap());

/// CRC-32 (ISO 3309) bit by bit, as no library does it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

fn checksum(covered: &str) -> String {
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32(covered.as_bytes());
    let mut text = [b'0'; 6];
    for digit in text.iter_mut().rev() {
        *digit = digits[(rest % 62) as usize];
        rest /= 62;
    }
    String::from_utf8(text.to_vec()).unwrap()
}

/// The key id and the hash of the secret of a bearer in the documented form.
fn expected(bearer: &[u8]) -> Option<(String, [u8; 32])> {
    let text = std::str::from_utf8(bearer).ok()?;
    let parts = FORM.captures(text)?;
    (checksum(&text[5..70]) == parts[3]).then(|| (parts[1].to_owned(), Sha256::digest(&parts[2]).into()))
}

fn read(bearer: &[u8]) -> Option<(String, [u8; 32])> {
    Presented::parse(bearer).map(|presented| (presented.key_id.to_string(), presented.hash))
}

fn key() -> impl Strategy<Value = String> {
    "[0-9A-Za-z]{65}".prop_map(|covered| format!("ward_{covered}{}", checksum(&covered)))
}

#[test]
fn a_well_formed_key_says_whose_it_is() {
    proptest!(crate::config(500), |(key in key())| {
        let (key_id, hash) = read(key.as_bytes()).unwrap();
        prop_assert_eq!(&key_id, &key[5..27]);
        prop_assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(&key[27..70])));
    });
    for _ in 0..100 {
        let made = NewSecret::generate().unwrap();
        assert_eq!(expected(made.text.as_bytes()), Some((made.key_id.to_string(), made.hash)));
    }
}

#[test]
fn a_key_with_one_wrong_character_is_none() {
    proptest!(crate::config(2_000), |(key in key(), at in any::<prop::sample::Index>(), wrong: u8)| {
        let mut bytes = key.into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != wrong);
        bytes[at] = wrong;
        prop_assert_eq!(read(&bytes), None);
    });
}

#[test]
fn a_key_with_two_neighbours_swapped_is_none() {
    proptest!(crate::config(2_000), |(key in key(), at in 0..75_usize)| {
        let mut bytes = key.into_bytes();
        prop_assume!(bytes[at] != bytes[at + 1]);
        bytes.swap(at, at + 1);
        prop_assert_eq!(read(&bytes), None);
    });
}

/// Far swaps, losses and additions could meet another key's checksum by chance, one in four billion. Never the same key.
#[test]
fn a_mangled_key_is_never_the_same_key() {
    let place = any::<prop::sample::Index>;
    proptest!(crate::config(2_000), |(key in key(), swap in (place(), place()), cut in place(), more: Option<u8>)| {
        let mut bytes = key.clone().into_bytes();
        let (one, other) = (swap.0.index(bytes.len()), swap.1.index(bytes.len()));
        bytes.swap(one, other);
        match more {
            Some(more) => bytes.insert(cut.index(bytes.len() + 1), more),
            None if one == other => drop(bytes.remove(cut.index(bytes.len()))),
            None => {}
        }
        prop_assert_eq!(read(&bytes), expected(&bytes));
        prop_assert!(bytes == key.as_bytes() || read(&bytes) != read(key.as_bytes()));
    });
}

#[test]
fn whatever_is_sent_is_read_as_the_documented_form_says() {
    let nearly = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        "(ward_|WARD_|ward-| ward_)?[0-9A-Za-z_ ]{60,80}".prop_map(String::into_bytes),
        "\\PC{0,80}".prop_map(String::into_bytes),
    ];
    proptest!(crate::config(2_000), |(bytes in nearly)| {
        prop_assert_eq!(read(&bytes), expected(&bytes));
    });
}
