//! Twilio's signature, against another HMAC over the text that Twilio's documentation describes.

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use sha1::Sha1;
use ward::twilio::form::Form;

type Fields = Vec<(String, String)>;

fn is_signed(token: &[u8], url: &str, fields: &Fields, given: &[u8]) -> bool {
    Form::of(fields.clone()).is_signed(token, url, given)
}

/// "Append each of the POST parameters, sorted by name, its name and then its value, to the URL." A name that came more
/// than once has its different values in order.
fn signed_text(url: &str, fields: &Fields) -> String {
    let mut sorted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in fields {
        sorted.entry(name).or_default().insert(value);
    }
    let mut text = url.to_owned();
    for (name, values) in sorted {
        for value in values {
            text += name;
            text += value;
        }
    }
    text
}

fn sign(token: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(token).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn fields() -> impl Strategy<Value = Fields> {
    let name = prop_oneof!["[A-Z][A-Za-z]{0,9}", "[ab]{0,2}", "\\PC{0,6}"];
    let value = prop_oneof!["[+0-9A-Za-z ]{0,12}", "[ab]{0,2}", any::<String>()];
    prop::collection::vec((name, value), 0..8)
}

fn token() -> impl Strategy<Value = Vec<u8>> {
    // Beyond 64 bytes, SHA-1's block, the key is hashed first.
    prop::collection::vec(any::<u8>(), 0..100)
}

const URL: &str = "https://[a-z]{1,8}\\.example(:443)?/v1/[0-9a-f-]{36}/twilio/status(\\?[a-z0-9=&%]{0,9})?";

#[test]
fn what_twilio_signs_is_signed_in_whatever_order_it_comes() {
    proptest!(crate::config(1_000), |(
        (token, url, (fields, shuffled)) in (token(), URL, fields().prop_flat_map(|f| (Just(f.clone()), Just(f).prop_shuffle())))
    )| {
        let signature = sign(&token, &signed_text(&url, &fields));
        prop_assert!(is_signed(&token, &url, &fields, &signature));
        prop_assert!(is_signed(&token, &url, &shuffled, &signature));
    });
}

#[test]
fn one_flipped_bit_anywhere_is_not_signed() {
    let place = any::<prop::sample::Index>;
    proptest!(crate::config(2_000), |(token in token(), url in URL, fields in fields(), what in 0..5, at in place(), bit in 0..7)| {
        let signature = sign(&token, &signed_text(&url, &fields));
        let flip = |text: &str| {
            let mut characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len());
            characters[at] = char::from_u32(u32::from(characters[at]) ^ 1_u32 << bit)?;
            Some(characters.into_iter().collect::<String>())
        };
        let flip_bytes = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            bytes
        };
        let field = (!fields.is_empty()).then(|| at.index(fields.len()));
        let mut other = fields.clone();
        let signed = match what {
            0 => is_signed(&token, &url, &fields, &flip_bytes(&signature)),
            1 if !token.is_empty() => is_signed(&flip_bytes(&token), &url, &fields, &signature),
            2 => {
                let Some(url) = flip(&url) else { return Ok(()) };
                is_signed(&token, &url, &fields, &signature)
            }
            3 | 4 => {
                let Some(field) = field else { return Ok(()) };
                let part = if what == 3 { &mut other[field].0 } else { &mut other[field].1 };
                prop_assume!(!part.is_empty());
                let Some(flipped) = flip(part) else { return Ok(()) };
                *part = flipped;
                // Names and values run together in what is signed: `ab`=`` and `a`=`b` are one text.
                prop_assume!(signed_text(&url, &other) != signed_text(&url, &fields));
                is_signed(&token, &url, &other, &signature)
            }
            _ => return Ok(()),
        };
        prop_assert!(!signed);
    });
}

#[test]
fn what_is_no_whole_signature_is_not_signed() {
    proptest!(crate::config(500), |(token in token(), url in URL, fields in fields(), given in prop::collection::vec(any::<u8>(), 0..40), keep in 0..20_usize)| {
        let signature = sign(&token, &signed_text(&url, &fields));
        prop_assert!(!is_signed(&token, &url, &fields, &given));
        prop_assert!(!is_signed(&token, &url, &fields, &signature[..keep]));
        prop_assert!(!is_signed(&token, &url, &fields, &[&signature[..], &given, &[0]].concat()));
    });
}
