//! Values being copied from one database to another, in a form that is the same on every engine.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Error, Json, Row, Timestamp, Value};

/// The portable type of a column.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bool,
    Int,
    Text,
    Uuid,
    Time,
    Json,
    Bytes,
}

/// A [`Value`] that owns its data.
#[derive(Clone)]
pub(super) enum OwnedValue {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Uuid(Uuid),
    Time(Timestamp),
    Json(String),
    Bytes(Vec<u8>),
}

impl Kind {
    /// The kind for a type's name in `information_schema`.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "boolean" => Self::Bool,
            "bigint" => Self::Int,
            "text" => Self::Text,
            "uuid" => Self::Uuid,
            "timestamp with time zone" => Self::Time,
            "jsonb" => Self::Json,
            "bytea" => Self::Bytes,
            _ => return None,
        })
    }

    pub(super) fn read(self, row: &Row<'_>, index: usize) -> Result<OwnedValue, Error> {
        fn of<T>(value: Option<T>, owned: fn(T) -> OwnedValue) -> OwnedValue {
            value.map_or(OwnedValue::Null, owned)
        }
        Ok(match self {
            Self::Bool => of(row.get(index)?, OwnedValue::Bool),
            Self::Int => of(row.get(index)?, OwnedValue::Int),
            Self::Text => of(row.get(index)?, OwnedValue::Text),
            Self::Uuid => of(row.get(index)?, OwnedValue::Uuid),
            Self::Time => of(row.get(index)?, OwnedValue::Time),
            Self::Json => of(row.get(index)?, |Json(text)| OwnedValue::Json(text)),
            Self::Bytes => of(row.get(index)?, OwnedValue::Bytes),
        })
    }
}

impl OwnedValue {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => (*flag).into(),
            Self::Int(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Uuid(id) => (*id).into(),
            Self::Time(time) => (*time).into(),
            Self::Json(text) => Value::Json(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
        }
    }

    /// Adds the value to a row's hash: its kind, its length and its bytes.
    fn feed(&self, hash: &mut Sha256) {
        let mut put = |kind: u8, bytes: &[u8]| {
            hash.update([kind]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        match self {
            Self::Null => put(0, &[]),
            Self::Bool(flag) => put(1, &[u8::from(*flag)]),
            Self::Int(number) => put(2, &number.to_be_bytes()),
            Self::Text(text) => put(3, text.as_bytes()),
            Self::Uuid(id) => put(4, id.as_bytes()),
            Self::Time(time) => put(5, &time.micros().to_be_bytes()),
            Self::Json(text) => put(6, canonical(text).as_bytes()),
            Self::Bytes(bytes) => put(7, bytes),
        }
    }
}

/// A canonical form of JSON, equal for both engines. SQLite keeps the given text. PostgreSQL orders keys,
/// changes the spacing and writes numbers out: `1e16` becomes `10000000000000000`, and `5e-324` becomes 324
/// digits.
fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    match write_canonical(text, &mut out) {
        Ok(()) => out,
        Err(_) => text.to_owned(),
    }
}

fn write_canonical(text: &str, out: &mut String) -> Result<(), serde_json::Error> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    match text.as_bytes().first() {
        Some(b'{') => {
            // Sorted by name. Of two equal names the last one counts, on both engines.
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            out.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(&name)?);
                out.push(':');
                write_canonical(value.get(), out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push('[');
            for (index, item) in items.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item.get(), out)?;
            }
            out.push(']');
        }
        Some(b'"') => out.push_str(&serde_json::to_string(&serde_json::from_str::<String>(text)?)?),
        Some(b'-' | b'0'..=b'9') => out.push_str(&decimal(text).unwrap_or_else(|| text.to_owned())),
        _ => out.push_str(text),
    }
    Ok(())
}

/// A JSON number as its digits, without zeros at either end, and a power of ten: `1.50` is `15e-1`. `None`
/// for exponents that do not fit 64 bits.
fn decimal(text: &str) -> Option<String> {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (number, power) = match text.split_once(['e', 'E']) {
        Some((number, power)) => (number, power.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        // Only an engine that keeps numbers as text keeps a negative zero.
        return Some("0".to_owned());
    }
    let power = power.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
    Some(format!("{sign}{significant}e{power}"))
}

/// The number of rows and the sum of their hashes: equal for equal sets of rows in any order.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) rows: u64,
    sum: [u64; 4],
}

impl Digest {
    pub(super) fn add(&mut self, row: &[OwnedValue]) {
        let mut hash = Sha256::new();
        for value in row {
            value.feed(&mut hash);
        }
        for (sum, part) in self.sum.iter_mut().zip(hash.finalize().chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(part);
            *sum = sum.wrapping_add(u64::from_be_bytes(word));
        }
        self.rows += 1;
    }

    pub(super) fn hex(self) -> String {
        self.sum.map(|word| format!("{word:016x}")).concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_means_the_same_is_the_same() {
        assert_eq!(
            canonical(r#"{"b":[1,{"d":1e3,"c":null}],"a":"x"}"#),
            r#"{"a":"x","b":[1e0,{"c":null,"d":1e3}]}"#
        );
        assert_eq!(canonical(" { } "), "{}");
        assert_eq!(canonical(r#"["\u0041\/", [ ], true]"#), r#"["A/",[],true]"#);
        let small = format!("0.{}5", "0".repeat(323));
        for (one, other) in [
            ("1e16", "10000000000000000"),
            ("-1E+18", "-1000000000000000000.00"),
            ("1e308", &format!("1{}", "0".repeat(308))),
            ("5e-324", &small),
            ("-0.0", "0"),
            ("12.50", "1250e-2"),
        ] {
            assert_eq!(canonical(one), canonical(other), "{one}");
        }
        for (one, other) in
            [("1", "-1"), ("1", "10"), ("0.1", "0.01"), ("9007199254740993", "9007199254740992")]
        {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
        assert_ne!(canonical("[1,2]"), canonical("[2,1]"));
    }

    #[test]
    fn a_digest_knows_values_and_not_their_order() {
        let rows = [
            vec![OwnedValue::Int(1), OwnedValue::Null],
            vec![OwnedValue::Int(2), OwnedValue::Text("1".into())],
        ];
        let of = |rows: &[&Vec<OwnedValue>]| {
            let mut digest = Digest::default();
            for row in rows {
                digest.add(row);
            }
            digest
        };
        assert!(of(&[&rows[0], &rows[1]]) == of(&[&rows[1], &rows[0]]));
        let other = vec![OwnedValue::Text(String::new()), OwnedValue::Null];
        assert!(of(&[&rows[0]]) != of(&[&other]));
        assert!(of(&[&rows[0], &rows[0]]) != of(&[&rows[0]]));
    }
}
