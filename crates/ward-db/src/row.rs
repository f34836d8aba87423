//! One row of a result, and how its columns become values again.

use rusqlite::types::ValueRef;
use uuid::Uuid;

use crate::Error;
use crate::postgres::{Cell as Native, cell};
use crate::value::{Json, Timestamp};

/// One row of a result, valid while its mapping function runs. Columns are counted from 0.
pub struct Row<'r>(pub(crate) RowOf<'r>);

pub(crate) enum RowOf<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

impl Row<'_> {
    /// The row as a `T`, which has all of its columns or the first ones. [`ErrorKind::Decode`](crate::ErrorKind::Decode)
    /// when a column is missing or holds something else.
    pub fn read<T: FromRow>(&self) -> Result<T, Error> {
        self.columns().read()
    }

    /// The columns, to be read one after the other.
    pub const fn columns(&self) -> Columns<'_> {
        Columns::of(self)
    }

    pub(crate) fn is_null(&self, index: usize) -> Result<bool, Error> {
        Ok(matches!(Cell::of(self, index)?, Cell::Sqlite(ValueRef::Null) | Cell::Postgres(Native::Null)))
    }

    /// Column `index` as a `T`; [`ErrorKind::Decode`](crate::ErrorKind::Decode) when the column is missing or holds something else.
    pub fn get<T: FromColumn>(&self, index: usize) -> Result<T, Error> {
        T::from_column(self, index)
    }

    /// Column `index` as text borrowed from the row, which allocates nothing.
    pub fn text(&self, index: usize) -> Result<&str, Error> {
        text_column(self, index)
    }
}

impl<'r> From<&'r tokio_postgres::Row> for Row<'r> {
    fn from(row: &'r tokio_postgres::Row) -> Self {
        Self(RowOf::Postgres(row))
    }
}

/// A type that a column can be read as. A column that holds another type gives an error of kind
/// [`Decode`](crate::ErrorKind::Decode), never a conversion.
pub trait FromColumn: Sized {
    /// Reads column `index`, counted from 0, of `row`.
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error>;
}

/// The columns of a row, read from the first to the last.
pub struct Columns<'r> {
    row: &'r Row<'r>,
    next: usize,
}

impl<'r> Columns<'r> {
    pub(crate) const fn of(row: &'r Row<'r>) -> Self {
        Self { row, next: 0 }
    }

    /// Reads the next columns as a `T`. [`ErrorKind::Decode`](crate::ErrorKind::Decode) when a column is missing
    /// or holds something else.
    pub fn read<T: FromRow>(&mut self) -> Result<T, Error> {
        T::from_row(self)
    }

    /// Whether the next column is NULL. It stays the next column.
    pub fn next_is_null(&self) -> Result<bool, Error> {
        self.row.is_null(self.next)
    }
}

/// A type that is read from the next columns of a row: a type of one column, a tuple, or a struct that
/// [`columns!`](crate::columns!) describes.
pub trait FromRow: Sized {
    /// Reads as many columns as the type has.
    fn from_row(columns: &mut Columns<'_>) -> Result<Self, Error>;
}

impl<T: FromColumn> FromRow for T {
    fn from_row(columns: &mut Columns<'_>) -> Result<Self, Error> {
        let value = T::from_column(columns.row, columns.next)?;
        columns.next += 1;
        Ok(value)
    }
}

/// Reads a whole row as a `T`: the function to give to [`Tx::all`](crate::Tx::all) and its kin.
pub fn decode<T: FromRow>(row: &Row<'_>) -> Result<T, Error> {
    row.read()
}

macro_rules! tuples {
    ($(($($element:ident),+);)+) => {
        $(impl<$($element: FromRow),+> FromRow for ($($element,)+) {
            fn from_row(columns: &mut Columns<'_>) -> Result<Self, Error> {
                Ok(($($element::from_row(columns)?,)+))
            }
        })+
    };
}

tuples! {
    (A, B);
    (A, B, C);
    (A, B, C, D);
    (A, B, C, D, E);
    (A, B, C, D, E, F);
    (A, B, C, D, E, F, G);
}

/// For [`columns!`](crate::columns!): reads the next columns and converts them.
#[doc(hidden)]
pub fn converted<T: FromRow, U>(
    columns: &mut Columns<'_>,
    convert: impl FnOnce(T) -> Result<U, Error>,
) -> Result<U, Error> {
    convert(columns.read()?)
}

/// A column's value as its engine holds it.
enum Cell<'r> {
    Sqlite(ValueRef<'r>),
    Postgres(Native<'r>),
}

impl<'r> Cell<'r> {
    fn of(row: &'r Row<'_>, index: usize) -> Result<Self, Error> {
        match &row.0 {
            RowOf::Sqlite(row) => row
                .get_ref(index)
                .map(Self::Sqlite)
                .map_err(|_| Error::decode(index, "a column of the row", "missing")),
            RowOf::Postgres(row) => cell(row, index).map(Self::Postgres),
        }
    }

    fn is_not<T>(&self, index: usize, wanted: &str) -> Result<T, Error> {
        let found = match self {
            Self::Sqlite(ValueRef::Null) => "null",
            Self::Sqlite(ValueRef::Integer(_)) => "an integer of another range",
            Self::Sqlite(ValueRef::Real(_)) => "a real number",
            Self::Sqlite(ValueRef::Text(_)) => "text of another form",
            Self::Sqlite(ValueRef::Blob(_)) => "bytes of another length",
            Self::Postgres(cell) => cell.name(),
        };
        Err(Error::decode(index, wanted, found))
    }
}

/// Column `index` as text borrowed from the row.
fn text_column<'r>(row: &'r Row<'_>, index: usize) -> Result<&'r str, Error> {
    match Cell::of(row, index)? {
        Cell::Sqlite(cell @ ValueRef::Text(_)) => {
            cell.as_str().or_else(|_| Cell::Sqlite(cell).is_not(index, "text"))
        }
        Cell::Postgres(Native::Text(text)) => Ok(text),
        other => other.is_not(index, "text"),
    }
}

impl FromColumn for bool {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Cell::of(row, index)? {
            Cell::Sqlite(ValueRef::Integer(0)) => Ok(false),
            Cell::Sqlite(ValueRef::Integer(1)) => Ok(true),
            Cell::Postgres(Native::Bool(flag)) => Ok(flag),
            other => other.is_not(index, "a boolean"),
        }
    }
}

impl FromColumn for i64 {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Cell::of(row, index)? {
            Cell::Sqlite(ValueRef::Integer(number)) | Cell::Postgres(Native::Int(number)) => Ok(number),
            other => other.is_not(index, "an integer"),
        }
    }
}

impl FromColumn for String {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        text_column(row, index).map(str::to_owned)
    }
}

impl FromColumn for Uuid {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Cell::of(row, index)? {
            Cell::Postgres(Native::Uuid(id)) => Ok(id),
            Cell::Sqlite(cell @ ValueRef::Blob(bytes)) => {
                Self::from_slice(bytes).or_else(|_| Cell::Sqlite(cell).is_not(index, "a UUID"))
            }
            other => other.is_not(index, "a UUID"),
        }
    }
}

impl FromColumn for Timestamp {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Cell::of(row, index)? {
            Cell::Postgres(Native::Time(time)) => Ok(time),
            Cell::Sqlite(ValueRef::Integer(micros))
                if (Self::MIN.micros()..=Self::MAX.micros()).contains(&micros) =>
            {
                Ok(Self::from_micros(micros))
            }
            other => other.is_not(index, "a time"),
        }
    }
}

impl FromColumn for Json {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Cell::of(row, index)? {
            Cell::Postgres(Native::Json(text)) => Ok(Self(text.to_owned())),
            Cell::Postgres(other) => Cell::Postgres(other).is_not(index, "JSON"),
            Cell::Sqlite(_) => text_column(row, index).map(|text| Self(text.to_owned())),
        }
    }
}

impl FromColumn for Vec<u8> {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Cell::of(row, index)? {
            Cell::Sqlite(ValueRef::Blob(bytes)) | Cell::Postgres(Native::Bytes(bytes)) => Ok(bytes.to_vec()),
            other => other.is_not(index, "bytes"),
        }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Cell::of(row, index)? {
            Cell::Sqlite(ValueRef::Null) | Cell::Postgres(Native::Null) => Ok(None),
            _ => T::from_column(row, index).map(Some),
        }
    }
}
