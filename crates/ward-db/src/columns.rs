//! Rows that are described once: [`columns!`](crate::columns!) gives the list of columns for the SQL and the
//! reading in the same order, [`insert!`](crate::insert) and [`update!`](crate::update) the list and the values.

use std::fmt::Write as _;

/// Describes how a struct is read from a row, once: its fields in the order of the columns. It gives the struct a
/// constant `COLUMNS`, the list for a `SELECT` or `RETURNING`, and [`FromRow`](crate::FromRow).
///
/// A field without an expression is the column of its name, behind the alias if there is one. An expression is
/// constant SQL; it may list several columns for a field that is a row itself. `=>` converts what was read, by a
/// function that returns a `Result`. Fields after the semicolon are in no column.
///
/// ```
/// # use ward_db::{Error, Timestamp, Tx, columns, decode, select};
/// struct Visit {
///     patient: String,
///     ended: bool,
///     began_at: Timestamp,
///     notes: Vec<String>,
/// }
///
/// columns! {
///     Visit as "v" {
///         patient,
///         ended: "v.ended_at IS NOT NULL",
///         began_at;
///         notes: Vec::new(),
///     }
/// }
///
/// const OPEN: &str = select!(Visit, "FROM visits v WHERE v.ended_at IS NULL");
/// assert_eq!(OPEN, "SELECT v.patient, v.ended_at IS NOT NULL, v.began_at FROM visits v WHERE v.ended_at IS NULL");
///
/// fn open(tx: &mut Tx<'_>) -> Result<Vec<Visit>, Error> {
///     tx.all(OPEN, &[], decode)
/// }
/// ```
#[macro_export]
macro_rules! columns {
    ($type:ident as $alias:literal { $($rest:tt)+ }) => {
        $crate::columns!(@described $type, concat!($alias, "."), $($rest)+);
    };
    ($type:ident { $($rest:tt)+ }) => {
        $crate::columns!(@described $type, "", $($rest)+);
    };
    (@described $type:ident, $prefix:expr,
        $($field:ident $(: $column:expr)? $(=> $convert:expr)?),+ $(,)?
        $(; $($other:ident: $value:expr),+ $(,)?)?
    ) => {
        impl $type {
            const COLUMNS: &'static str =
                $crate::columns!(@list $($crate::columns!(@column $prefix, $field $(, $column)?)),+);
        }

        impl $crate::FromRow for $type {
            fn from_row(columns: &mut $crate::Columns<'_>) -> Result<Self, $crate::Error> {
                Ok(Self {
                    $($field: $crate::columns!(@read columns $(, $convert)?),)+
                    $($($other: $value,)+)?
                })
            }
        }
    };
    (@column $prefix:expr, $field:ident, $column:expr) => { $column };
    (@column $prefix:expr, $field:ident) => { $crate::sql!($prefix, stringify!($field)) };
    (@list $first:expr $(, $next:expr)*) => { $crate::sql!($first $(, ", ", $next)*) };
    (@read $columns:ident) => { $columns.read()? };
    (@read $columns:ident, $convert:expr) => { $crate::converted($columns, $convert)? };
}

/// Joins constant texts to one, at compile time.
#[macro_export]
macro_rules! sql {
    ($($part:expr),+ $(,)?) => { $crate::constcat::concat!($($part),+) };
}

/// A `SELECT` of the columns of a struct that [`columns!`](crate::columns!) describes, with the rest of the statement
/// as constant texts.
#[macro_export]
macro_rules! select {
    ($type:ty, $($rest:expr),+ $(,)?) => {
        $crate::sql!("SELECT ", <$type>::COLUMNS, " ", $($rest),+)
    };
}

/// Inserts a row, each column beside its value. A text after the columns ends the statement, such as
/// `"ON CONFLICT (id) DO NOTHING"`. The expression is the number of inserted rows.
#[macro_export]
macro_rules! insert {
    (@$execute:ident $tx:expr, $table:literal { $($column:ident: $value:expr),+ $(,)? } $($end:literal)?) => {{
        static SQL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            $crate::insert_statement($table, &[$(stringify!($column)),+], concat!($(" ", $end)?))
        });
        $tx.$execute(&SQL, &[$($crate::Value::from($value)),+])
    }};
    ($($row:tt)+) => { $crate::insert!(@execute $($row)+) };
}

/// Inserts a row as [`insert!`](crate::insert) does, through [`Tx::execute_later`](crate::Tx::execute_later).
#[macro_export]
macro_rules! insert_later {
    ($($row:tt)+) => { $crate::insert!(@execute_later $($row)+) };
}

/// For [`insert!`](crate::insert): the statement with these columns, in this order.
#[doc(hidden)]
pub fn insert_statement(table: &str, columns: &[&str], end: &str) -> String {
    let mut places = String::new();
    for number in 1..=columns.len() {
        let _ = write!(places, "{}${number}", if number == 1 { "" } else { ", " });
    }
    format!("INSERT INTO {table} ({}) VALUES ({places}){end}", columns.join(", "))
}

/// Updates rows, each column beside its value. The values of the condition come first, so `$1` is the first of
/// them. The expression is the number of updated rows.
#[macro_export]
macro_rules! update {
    (@$execute:ident $tx:expr, $table:literal { $($column:ident: $value:expr),+ $(,)? } $condition:expr, [$($bound:expr),+]) => {{
        static SQL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            let bound = [$(stringify!($bound)),+].len();
            $crate::update_statement($table, &[$(stringify!($column)),+], $condition, bound)
        });
        $tx.$execute(&SQL, &[$($crate::Value::from($bound)),+, $($crate::Value::from($value)),+])
    }};
    ($($row:tt)+) => { $crate::update!(@execute $($row)+) };
}

/// Updates rows as [`update!`](crate::update) does, through [`Tx::execute_later`](crate::Tx::execute_later).
#[macro_export]
macro_rules! update_later {
    ($($row:tt)+) => { $crate::update!(@execute_later $($row)+) };
}

/// For [`update!`](crate::update): the statement with these columns, whose values follow `bound` others.
#[doc(hidden)]
pub fn update_statement(table: &str, columns: &[&str], condition: &str, bound: usize) -> String {
    let set: Vec<String> =
        columns.iter().zip(bound + 1..).map(|(column, number)| format!("{column} = ${number}")).collect();
    format!("UPDATE {table} SET {} WHERE {condition}", set.join(", "))
}
