//! Values on their way from one database to another, in a form that is the same on every engine.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Error, Json, Row, Timestamp, Value};

/// What a column holds.
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

/// A value that belongs to nobody.
#[derive(Clone)]
pub(super) enum Owned {
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
    /// By the name that `information_schema` has for it.
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

    pub(super) fn read(self, row: &Row<'_>, index: usize) -> Result<Owned, Error> {
        fn of<T>(value: Option<T>, owned: fn(T) -> Owned) -> Owned {
            value.map_or(Owned::Null, owned)
        }
        Ok(match self {
            Self::Bool => of(row.get(index)?, Owned::Bool),
            Self::Int => of(row.get(index)?, Owned::Int),
            Self::Text => of(row.get(index)?, Owned::Text),
            Self::Uuid => of(row.get(index)?, Owned::Uuid),
            Self::Time => of(row.get(index)?, Owned::Time),
            Self::Json => of(row.get(index)?, |Json(text)| Owned::Json(text)),
            Self::Bytes => of(row.get(index)?, Owned::Bytes),
        })
    }
}

impl Owned {
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

    /// Adds the value to a row's hash: what kind it is, how long, and itself.
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

/// JSON as both engines agree on it: one keeps the text that it was given, the other orders and spaces it anew.
fn canonical(text: &str) -> String {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::Object(fields) => {
                let mut fields: Vec<_> =
                    fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
                fields.sort_by(|(one, _), (other, _)| one.cmp(other));
                Value::Object(fields.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
            // `1e3` comes back as `1000` from where numbers are kept as numbers.
            Value::Number(number) => number
                .as_f64()
                .filter(|float| {
                    !number.is_i64() && !number.is_u64() && float.fract() == 0.0 && float.abs() < 1e15
                })
                .map_or(Value::Number(number), |float| {
                    #[expect(clippy::cast_possible_truncation, reason = "whole, and far below 2^63")]
                    Value::from(float as i64)
                }),
            other => other,
        }
    }
    serde_json::from_str(text).map(sorted).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

/// How many rows, and the sum of their hashes: equal for equal sets of rows, whatever order they come in.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) rows: u64,
    sum: [u64; 4],
}

impl Digest {
    pub(super) fn add(&mut self, row: &[Owned]) {
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
            r#"{"a":"x","b":[1,{"c":null,"d":1000}]}"#
        );
        assert_ne!(canonical("[1,2]"), canonical("[2,1]"));
    }

    #[test]
    fn a_digest_knows_values_and_not_their_order() {
        let rows = [vec![Owned::Int(1), Owned::Null], vec![Owned::Int(2), Owned::Text("1".into())]];
        let of = |rows: &[&Vec<Owned>]| {
            let mut digest = Digest::default();
            for row in rows {
                digest.add(row);
            }
            digest
        };
        assert!(of(&[&rows[0], &rows[1]]) == of(&[&rows[1], &rows[0]]));
        let other = vec![Owned::Text(String::new()), Owned::Null];
        assert!(of(&[&rows[0]]) != of(&[&other]));
        assert!(of(&[&rows[0], &rows[0]]) != of(&[&rows[0]]));
    }
}
