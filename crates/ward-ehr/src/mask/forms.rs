//! The forms in which a secret is known to be echoed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;
use zeroize::Zeroizing;

/// A secret as it is, in JSON (for JSON inside a string), without white space, in hexadecimal, base64 and
/// base32. The last two are made for every alignment, because a server may encode the whole header that holds
/// the secret.
pub fn of(secret: &str) -> Vec<Zeroizing<String>> {
    let quoted = Value::from(secret).to_string();
    let escaped = &quoted[1..quoted.len() - 1];
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let hex: String = secret.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    let mut forms = vec![
        secret.to_owned(),
        escaped.replace('/', "\\/"),
        escaped.to_owned(),
        secret.split_whitespace().collect(),
        hex.to_uppercase(),
        hex,
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        base32(secret.as_bytes()),
    ];
    for before in 0..3 {
        let shifted = [&[0; 3][..before], secret.as_bytes()].concat();
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            forms.push(certain(&encoded, before, shifted.len(), 6));
        }
    }
    for before in 0..5 {
        let shifted = [&[0; 5][..before], secret.as_bytes()].concat();
        forms.push(certain(&base32(&shifted), before, shifted.len(), 5));
    }
    let lower: Vec<String> = forms[8..9].iter().chain(&forms[15..]).map(|form| form.to_lowercase()).collect();
    forms.into_iter().chain(lower).map(Zeroizing::new).collect()
}

/// The part of an encoding that does not depend on its neighbours. `before` bytes precede the secret, and
/// `length` includes them.
fn certain(encoded: &str, before: usize, length: usize, bits: usize) -> String {
    let first = (before * 8).div_ceil(bits);
    let end = length * 8 / bits;
    encoded.get(first..end).unwrap_or_default().to_owned()
}

/// The bytes in base32, without padding (RFC 4648 section 6).
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut text, mut held, mut bits) = (String::new(), 0_u32, 0);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_the_standard() {
        // RFC 4648 section 10.
        for (plain, encoded) in
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foob", "MZXW6YQ"), ("foobar", "MZXW6YTBOI")]
        {
            assert_eq!(base32(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn what_neighbours_change_is_no_part_of_a_form() {
        for before in ["", "a", "ab", "abc", "abcd"] {
            for after in ["", "x", "xy"] {
                let text = format!("{before}the-secret{after}");
                let (base64, base32) = (STANDARD_NO_PAD.encode(&text), base32(text.as_bytes()));
                let forms = of("the-secret");
                assert!(forms.iter().any(|form| base64.contains(form.as_str())), "{text}");
                assert!(forms.iter().any(|form| base32.contains(form.as_str())), "{text}");
                assert!(forms.iter().any(|form| base32.to_lowercase().contains(form.as_str())), "{text}");
            }
        }
    }
}
