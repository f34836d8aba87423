//! JSON from the other side, parsed within a limit on memory. A parsed tree takes up to seventy times the
//! bytes of its text, so the limit applies to the tree.

use serde_json::Value;

/// The bytes of one value in its list, including the spare capacity of a growing list.
const VALUE: usize = 112;
/// The bytes of one field's name, without its characters.
const FIELD: usize = 80;
/// The bytes of an object that has fields, without the fields.
const OBJECT: usize = 200;
/// The maximum size of a tree in bytes, for answers that no share of a pool limits.
pub const SMALL_TREE: usize = 16 << 20;

/// An estimate of the memory that a text takes once it is parsed, in bytes. It is rather too high than too
/// low, and takes one pass.
pub fn weight(text: &[u8]) -> usize {
    let (mut values, mut fields, mut objects) = (1_usize, 0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    // The last opened bracket, as long as nothing follows it.
    let mut opened = None;
    for byte in text {
        if in_string {
            (in_string, escaped) = (escaped || *byte != b'"', !escaped && *byte == b'\\');
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        if let Some(bracket) = opened.take()
            && !matches!(byte, b']' | b'}')
        {
            values += 1;
            objects += usize::from(bracket == b'{');
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => opened = Some(*byte),
            b',' => values += 1,
            b':' => fields += 1,
            _ => {}
        }
    }
    text.len() + values * VALUE + fields * FIELD + objects * OBJECT
}

/// Parses a text. `None` if it is not JSON, or if its tree would be larger than `most` bytes.
pub fn parse(text: &[u8], most: usize) -> Option<Value> {
    if weight(text) > most {
        return None;
    }
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_weighed_by_its_values_and_not_by_its_text() {
        let list = format!("[{}{{}}]", "{},".repeat(1000));
        assert_eq!(weight(list.as_bytes()), list.len() + 1002 * VALUE);
        assert_eq!(weight(br#"{"a,b:[{":"\"x,","c":[ ]}"#), 25 + 3 * VALUE + 2 * FIELD + OBJECT);
        assert_eq!(weight(b""), VALUE);
        assert_eq!(weight(br#"["\\",1]"#), 8 + 3 * VALUE, "an escaped backslash ends no string");
    }

    #[test]
    fn a_tree_that_would_be_too_large_is_not_made() {
        let text = json!([1, { "a": "b" }]).to_string();
        assert!(parse(text.as_bytes(), 2000).is_some());
        assert_eq!(parse(text.as_bytes(), 500), None);
        assert_eq!(parse(b"no", 2000), None);
    }
}
