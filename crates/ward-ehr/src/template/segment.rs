//! Checks whether a value may be one segment of a path.
//!
//! Ward percent-encodes a value before it goes into a path. Some servers and proxies decode a path more than
//! once, or fold look-alike characters. So an encoded slash or dot segment can still select another resource.
//! The checks here run on the value as such a server could read it.

use percent_encoding::percent_decode_str;

/// The maximum number of encoding layers that are removed. A value with more layers is refused.
const MOST_LAYERS: usize = 8;

/// Characters that compatibility normalization (Unicode NFKC) or a legacy code page turns into a slash or a backslash.
const SEPARATORS: [char; 20] = [
    '/', '\\', '\u{2044}', '\u{2215}', '\u{2216}', '\u{2571}', '\u{2572}', '\u{27CB}', '\u{27CD}',
    '\u{29F5}', '\u{29F8}', '\u{29F9}', '\u{FE68}', '\u{FF0F}', '\u{FF3C}', '\u{2100}', '\u{2101}',
    '\u{2105}', '\u{2106}', '\u{20E5}',
];

/// Whether a value cannot end its segment or become a dot segment, no matter how it is decoded.
pub fn is_plain(value: &str) -> bool {
    decoded(value).is_some_and(|text| !text.contains(SEPARATORS) && !is_dot_segment(&text))
}

/// The template's own text for the check of its segment: decoded, and without separators, because the author
/// of the endpoint chose those.
pub fn neutral(text: &str) -> String {
    decoded(text).unwrap_or_else(|| text.to_owned()).replace(SEPARATORS, "x")
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

/// The text with full-width and small forms of ASCII characters as ASCII.
fn folded(text: &str) -> String {
    let fold = |character: char| match character {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(character) - 0xFEE0).unwrap_or(character),
        '\u{FE6A}' => '%',
        '\u{FE68}' => '\\',
        '\u{FE52}' | '\u{2024}' | '\u{3002}' | '\u{FF61}' => '.',
        other => other,
    };
    text.chars().map(fold).collect()
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

/// Whether a decoded segment is `.` or `..`. Before they resolve dot segments, parsers drop white space,
/// controls and invisible characters. Some servers also drop parameters after a semicolon (RFC 3986 section
/// 3.3).
fn is_dot_segment(text: &str) -> bool {
    let segment = text.split(';').next().unwrap_or_default();
    let visible = segment.chars().filter(|it| {
        let invisible = matches!(it, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}');
        !(it.is_whitespace() || it.is_control() || invisible)
    });
    let mut dots = 0;
    for character in visible {
        dots += match character {
            '.' => 1,
            '\u{2025}' => 2,
            _ => return false,
        };
    }
    matches!(dots, 1 | 2)
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
        ] {
            assert!(!is_plain(value), "{value}");
        }
        for value in
            ["42", "a.b", "...", "100%", "5%-10%", "Zürich", "a b", "a:b;c=d", "urn:oid:1.2.3", "p@x", "%zz"]
        {
            assert!(is_plain(value), "{value}");
        }
    }

    #[test]
    fn the_templates_own_separators_are_its_authors_choice() {
        assert_eq!(neutral("a%2Fb"), "axb");
        assert_eq!(neutral("%25"), "%");
    }
}
