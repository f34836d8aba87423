//! Values in PostgreSQL's binary format, for binding and reading.

use std::error::Error as StdError;
use std::fmt;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::Error;
use crate::value::{Timestamp, Value};

/// The origin of `timestamptz`, 2000-01-01, in microseconds since the Unix epoch.
const ORIGIN: i64 = 946_684_800_000_000;

/// A value to bind, encoded when it is sent.
pub(super) struct BoundValue<'a>(pub(super) Value<'a>);

/// Hides the value, because the driver writes parameters into its debug log.
impl fmt::Debug for BoundValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

impl BoundValue<'_> {
    /// The declared type of the parameter; for NULL the server infers one.
    pub(super) const fn declared(&self) -> Type {
        match self.0 {
            Value::Null => Type::UNKNOWN,
            Value::Bool(_) => Type::BOOL,
            Value::Int(_) => Type::INT8,
            Value::Text(_) => Type::TEXT,
            Value::Uuid(_) => Type::UUID,
            Value::Time(_) => Type::TIMESTAMPTZ,
            Value::Json(_) => Type::JSONB,
            Value::Bytes(_) => Type::BYTEA,
        }
    }

    /// The value in binary form, which outlives the borrowed data.
    pub(super) fn encoded(&self) -> EncodedValue {
        let mut out = BytesMut::new();
        match self.encode(&mut out) {
            IsNull::Yes => EncodedValue(None),
            IsNull::No => EncodedValue(Some(out)),
        }
    }

    fn encode(&self, out: &mut BytesMut) -> IsNull {
        match self.0 {
            Value::Null => return IsNull::Yes,
            Value::Bool(flag) => out.extend_from_slice(&[u8::from(flag)]),
            Value::Int(number) => out.extend_from_slice(&number.to_be_bytes()),
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
            Value::Uuid(id) => out.extend_from_slice(id.as_bytes()),
            Value::Time(time) => out.extend_from_slice(&(time.micros() - ORIGIN).to_be_bytes()),
            Value::Json(text) => {
                // The version number of the binary format.
                out.extend_from_slice(&[1]);
                out.extend_from_slice(text.as_bytes());
            }
            Value::Bytes(bytes) => out.extend_from_slice(bytes),
        }
        IsNull::No
    }
}

impl ToSql for BoundValue<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        Ok(self.encode(out))
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value in binary form; `None` stands for NULL.
pub(super) struct EncodedValue(Option<BytesMut>);

/// Hides the value, because the driver writes parameters into its debug log.
impl fmt::Debug for EncodedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

impl ToSql for EncodedValue {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let Some(bytes) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A column's value in its native type.
pub(crate) enum Cell<'r> {
    Null,
    Bool(bool),
    Int(i64),
    Text(&'r str),
    Uuid(Uuid),
    Time(Timestamp),
    Json(&'r str),
    Bytes(&'r [u8]),
    /// A value outside the portable types, or out of range.
    Other,
}

impl Cell<'_> {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Text(_) => "text",
            Self::Uuid(_) => "a UUID",
            Self::Time(_) => "a time",
            Self::Json(_) => "JSON",
            Self::Bytes(_) => "bytes",
            Self::Other => "a value of another type",
        }
    }
}

impl<'r> FromSql<'r> for Cell<'r> {
    fn from_sql(kind: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(match *kind {
            Type::BOOL => Self::Bool(bool::from_sql(kind, raw)?),
            Type::INT8 => Self::Int(i64::from_sql(kind, raw)?),
            Type::INT4 => Self::Int(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => Self::Int(i16::from_sql(kind, raw)?.into()),
            Type::TEXT | Type::VARCHAR | Type::NAME => Self::Text(std::str::from_utf8(raw)?),
            Type::UUID => Self::Uuid(Uuid::from_slice(raw)?),
            Type::TIMESTAMPTZ => {
                timestamp(i64::from_be_bytes(raw.try_into()?)).map_or(Self::Other, Self::Time)
            }
            Type::JSONB => match raw.split_first() {
                Some((1, text)) => Self::Json(std::str::from_utf8(text)?),
                _ => Self::Other,
            },
            Type::BYTEA => Self::Bytes(raw),
            _ => Self::Other,
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// `None` for the infinities and for years that a [`Timestamp`] cannot hold.
fn timestamp(since_origin: i64) -> Option<Timestamp> {
    let micros = since_origin.checked_add(ORIGIN)?;
    let timestamp = Timestamp::from_micros(micros);
    (timestamp.micros() == micros).then_some(timestamp)
}

/// The value of column `index`, counted from 0.
pub(crate) fn cell(row: &tokio_postgres::Row, index: usize) -> Result<Cell<'_>, Error> {
    if index >= row.len() {
        return Err(Error::decode(index, "a column of the row", "missing"));
    }
    row.try_get(index).map_err(|_| Error::decode(index, "a value", "one that cannot be read"))
}
