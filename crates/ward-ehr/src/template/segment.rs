//! Checks whether a value may be one segment of a path.
//!
//! Ward percent-encodes a value before it goes into a path. Some servers and proxies decode a path more than
//! once, or fold look-alike characters. So an encoded slash or dot segment can still select another resource.
//! The checks here run on the value as such a server could read it.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};
use percent_encoding::percent_decode_str;

/// The maximum number of encoding layers that are removed. A value with more layers is refused.
const MOST_LAYERS: usize = 8;

/// Typographic signs of names and measures. No server or code page turns them into a separator or a dot.
const SIGNS: [char; 13] = [
    '\u{A7}', '\u{B0}', '\u{B7}', '\u{5BE}', '\u{5F3}', '\u{5F4}', '\u{2010}', '\u{2013}', '\u{2014}',
    '\u{2018}', '\u{2019}', '\u{20AC}', '\u{30FB}',
];

/// Whether a value cannot end its segment or become a dot segment, no matter how it is decoded.
pub fn is_plain(value: &str) -> bool {
    decoded(value).is_some_and(|text| text.chars().all(is_allowed) && !is_dot_segment(&text))
}

/// The template's own text for the check of its segment: decoded, and with a letter for each character that no value
/// may contain, because the author of the endpoint chose those.
pub fn neutral(text: &str) -> String {
    let text = decoded(text).unwrap_or_else(|| text.to_owned());
    text.chars().map(|it| if is_allowed(it) { it } else { 'x' }).collect()
}

/// Whether a value may contain this character, which is part of a text in NFKC. A list of the allowed ones is safer
/// than one of the others: code pages turn several currency signs into a backslash, and parsers drop characters that
/// are not displayed.
fn is_allowed(character: char) -> bool {
    if character.is_ascii() {
        return !(character.is_ascii_control() || matches!(character, '/' | '\\'));
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(character);
    let is_text = [GeneralCategoryGroup::Letter, GeneralCategoryGroup::Mark, GeneralCategoryGroup::Number]
        .iter()
        .any(|group| group.contains(category));
    (is_text || SIGNS.contains(&character))
        && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

/// The text without its layers of percent-encoding. `None` if it has too many layers, or if it is not UTF-8
/// once decoded, as overlong forms are not.
fn decoded(text: &str) -> Option<String> {
    let mut text = folded(text);
    for _ in 0..MOST_LAYERS {
        let next = folded(&percent_decode_str(&without_unicode_escapes(&text)).decode_utf8().ok()?);
        if next == text {
            return Some(text);
        }
        text = next;
    }
    None
}

/// The text in NFKC, in which full-width, small and joined forms of ASCII characters are ASCII.
fn folded(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfkc().normalize(text).into_owned()
}

/// Replaces `%uXXXX`, an encoding that some servers accept, by its character.
fn without_unicode_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let digits = tail.strip_prefix(['u', 'U']).and_then(|digits| digits.get(..4));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(character) =
            digits.and_then(|digits| char::from_u32(u32::from_str_radix(digits, 16).ok()?))
        {
            plain.push(character);
            rest = &tail[5..];
        } else {
            plain.push('%');
            rest = tail;
        }
    }
    plain.push_str(rest);
    plain
}

/// Whether a decoded segment is `.` or `..`. Some servers ignore spaces in it, and parameters after a semicolon (RFC 3986
/// section 3.3). A server that decodes the path again also ends the segment at a query or a fragment.
fn is_dot_segment(text: &str) -> bool {
    let segment = text.split([';', '?', '#']).next().unwrap_or_default();
    let dots = segment.chars().filter(|it| *it == '.').count();
    matches!(dots, 1 | 2) && segment.chars().all(|it| matches!(it, '.' | ' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_or_dot_segment_is_found_in_every_encoding() {
        for value in [
            "a/b",
            "a\\b",
            "../admin",
            "%2F",
            "%2f",
            "%5C",
            "a%252Fb",
            "a%25252525255cb",
            "%252525252525252525252525252fx",
            "%%32%46",
            "%25%32%46",
            "..%00/",
            "%c0%af",
            "%C1%9C",
            "%e0%80%af",
            "%f0%80%80%af",
            "%c0%ae%c0%ae",
            "\u{FF0F}",
            "%ef%bc%8f",
            "\u{FF3C}",
            "\u{FF05}2F",
            "%EF%BC%852F",
            "\u{2215}",
            "\u{2044}",
            "\u{2100}",
            "%u002f",
            "%U005C",
            "%u2215",
            ".",
            "..",
            "%2e",
            "%2E%2e",
            "%252e.",
            "\u{FF0E}.",
            "%u002e%u002e",
            "\u{2025}",
            "..;x=1",
            "..%3bx",
            ".%09.",
            " .. ",
            ".\u{200B}.",
            "\u{2024}\u{2024}",
            "\u{FE30}",
            "%EF%B8%B0",
            ".\u{FE0F}.",
            ".\u{202E}.",
            ".\u{34F}.",
            ".\u{180E}.",
            "..\u{2061}",
            "..\u{115F}",
            "..\u{3164}",
            "..\u{FFA0}",
            "..\u{E0001}",
            "..%F3%A0%80%81",
            "a\u{A5}b",
            "a\u{20A9}b",
            "a\u{FFE5}b",
            "a\u{FFE6}b",
            "..?",
            "..#",
            "%2e%2e%3f",
            "..%23",
            "..%3fx",
            ".?x",
            "\u{3002}\u{3002}",
            "a\tb",
        ] {
            assert!(!is_plain(value), "{value}");
        }
        for value in [
            "42",
            "a.b",
            "...",
            "100%",
            "5%-10%",
            "Zürich",
            "a b",
            "a:b;c=d",
            "urn:oid:1.2.3",
            "p@x",
            "%zz",
            "O\u{2019}Brien",
            "\u{5C71}\u{7530}",
            "\u{928}\u{92E}\u{938}\u{94D}\u{924}\u{947}",
            "36.6 \u{B0}C",
            "a?b#c",
            "..a",
            "?",
        ] {
            assert!(is_plain(value), "{value}");
        }
    }

    #[test]
    fn the_templates_own_separators_are_its_authors_choice() {
        assert_eq!(neutral("a%2Fb"), "axb");
        assert_eq!(neutral("%25"), "%");
    }
}
