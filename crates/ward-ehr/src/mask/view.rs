//! A text with layers of encoding undone. Each byte of a view has its source range, so that a secret found in
//! the view is masked in the text itself.

use std::ops::Range;

/// Bytes, each with its source range in the text.
pub struct View {
    pub bytes: Vec<u8>,
    from: Vec<(u32, u32)>,
}

impl View {
    /// The view of a text with no layer undone.
    pub fn of(text: &str) -> Self {
        let at = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let from = (0..text.len()).map(|index| (at(index), at(index + 1))).collect();
        Self { bytes: text.as_bytes().to_vec(), from }
    }

    /// The range of the text from which these bytes of the view come.
    pub fn source(&self, found: &Range<usize>) -> Range<usize> {
        let start = self.from.get(found.start).map_or(0, |from| from.0);
        let end = self.from.get(found.end.saturating_sub(1)).map_or(0, |from| from.1);
        start as usize..end as usize
    }

    /// The view without white space, in which a secret that was wrapped over lines is whole.
    pub fn unwrapped(&self) -> Option<Self> {
        self.bytes.iter().any(u8::is_ascii_whitespace).then(|| {
            self.decoded_by(|rest, byte| {
                let space = byte.is_ascii_whitespace();
                space.then(|| (rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count(), Vec::new()))
            })
        })
    }

    /// The view with each plus as a space, as in forms.
    pub fn spaced(&self) -> Option<Self> {
        let plus = self.bytes.contains(&b'+');
        plus.then(|| self.decoded_by(|_, byte| (byte == b'+').then(|| (1, vec![b' ']))))
    }

    /// The view with one layer of encoding undone: percent, quoted-printable, character references of HTML,
    /// and the escapes of JSON and C. `None` if there is no such layer.
    pub fn decoded(&self) -> Option<Self> {
        if !self.bytes.iter().any(|byte| matches!(byte, b'%' | b'=' | b'&' | b'\\')) {
            return None;
        }
        let decoded = self.decoded_by(|rest, byte| match byte {
            b'%' => hex(rest.get(1..3)?).map(|byte| (3, vec![byte])),
            b'=' => quoted_printable(rest),
            b'&' => reference(rest),
            b'\\' => escape(rest),
            _ => None,
        });
        (decoded.bytes != self.bytes).then_some(decoded)
    }

    /// The view with each sequence that `decode` recognizes replaced. `decode` returns the length of the
    /// sequence and the bytes that it stands for.
    fn decoded_by(&self, decode: impl Fn(&[u8], u8) -> Option<(usize, Vec<u8>)>) -> Self {
        let (mut bytes, mut from) =
            (Vec::with_capacity(self.bytes.len()), Vec::with_capacity(self.bytes.len()));
        let mut at = 0;
        while let Some(byte) = self.bytes.get(at) {
            if let Some((length, decoded)) = decode(&self.bytes[at..], *byte) {
                let length = length.max(1);
                let source = (self.from[at].0, self.from[at + length - 1].1);
                from.extend(decoded.iter().map(|_| source));
                bytes.extend(decoded);
                at += length;
            } else {
                bytes.push(*byte);
                from.push(self.from[at]);
                at += 1;
            }
        }
        Self { bytes, from }
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::try_from(number(digits, 16)?).ok()
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    if text.is_empty() || !text.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

fn utf8(code: u32) -> Option<Vec<u8>> {
    Some(char::from_u32(code)?.to_string().into_bytes())
}

/// Decodes `=3D`, or a soft line break (RFC 2045 section 6.7).
fn quoted_printable(rest: &[u8]) -> Option<(usize, Vec<u8>)> {
    if rest.starts_with(b"=\r\n") {
        return Some((3, Vec::new()));
    }
    if rest.starts_with(b"=\n") {
        return Some((2, Vec::new()));
    }
    Some((3, vec![hex(rest.get(1..3)?)?]))
}

/// Decodes a character reference of HTML. The known names are those of HTML's own characters and of other
/// ASCII characters.
fn reference(rest: &[u8]) -> Option<(usize, Vec<u8>)> {
    let end = rest.iter().take(12).position(|byte| *byte == b';')?;
    let name = &rest[1..end];
    let code = match name.strip_prefix(b"#") {
        Some(digits) => match digits.strip_prefix(b"x").or_else(|| digits.strip_prefix(b"X")) {
            Some(digits) => number(digits, 16)?,
            None => number(digits, 10)?,
        },
        None => NAMED.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, code)| u32::from(*code))?,
    };
    Some((end + 1, utf8(code)?))
}

const NAMED: [(&str, char); 32] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", ' '),
    ("sol", '/'),
    ("bsol", '\\'),
    ("plus", '+'),
    ("equals", '='),
    ("num", '#'),
    ("percnt", '%'),
    ("dollar", '$'),
    ("excl", '!'),
    ("ast", '*'),
    ("lpar", '('),
    ("rpar", ')'),
    ("comma", ','),
    ("period", '.'),
    ("colon", ':'),
    ("semi", ';'),
    ("quest", '?'),
    ("commat", '@'),
    ("lsqb", '['),
    ("rsqb", ']'),
    ("lcub", '{'),
    ("rcub", '}'),
    ("lowbar", '_'),
    ("grave", '`'),
    ("Hat", '^'),
    ("verbar", '|'),
    ("Tilde", '~'),
];

/// Decodes an escape of JSON (RFC 8259 section 7), or `\x41`.
fn escape(rest: &[u8]) -> Option<(usize, Vec<u8>)> {
    match rest.get(1)? {
        b'u' => {
            let code = number(rest.get(2..6)?, 16)?;
            if let 0xd800..=0xdbff = code
                && rest.get(6..8) == Some(b"\\u")
                && let Some(low) = number(rest.get(8..12)?, 16).filter(|low| (0xdc00..0xe000).contains(low))
            {
                return Some((12, utf8(0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00))?));
            }
            Some((6, utf8(code)?))
        }
        b'x' => Some((4, vec![hex(rest.get(2..4)?)?])),
        b'n' => Some((2, vec![b'\n'])),
        b'r' => Some((2, vec![b'\r'])),
        b't' => Some((2, vec![b'\t'])),
        plain @ (b'"' | b'\\' | b'/' | b'\'') => Some((2, vec![*plain])),
        _ => None,
    }
}
