//! Errors of a database, by the caller's possible reactions.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The kind of an [`Error`], by the caller's possible reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A query that must give a row gave none.
    NoRow,
    /// A constraint of the schema refused the change.
    Constraint,
    /// Another transaction was in the way; the same closure may succeed when run again.
    Conflict,
    /// Nothing was changed, and the request itself may be fine. On SQLite, the queue or the disk is full, the
    /// file cannot be read or written, or the batch was aborted. On PostgreSQL, the server cannot be reached
    /// or takes no writes, or every connection is busy. Or the database is closed.
    Unavailable,
    /// The commit itself failed: the changes may or may not have been made.
    Unknown,
    /// The time limit was reached before the call was done.
    Timeout,
    /// A column does not hold a value of the requested type.
    Decode,
    /// The closure panicked; its changes were rolled back.
    Panic,
    /// The transaction met an error before and takes no further statement.
    Refused,
    /// The schema is not one that this binary can run on.
    Schema,
    /// Misuse: a bad URL, bad SQL, or a value that the engines cannot store.
    Invalid,
}

impl ErrorKind {
    /// The kind as a metric label: lower case, with `_` between words.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoRow => "no_row",
            Self::Constraint => "constraint",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Timeout => "timeout",
            Self::Decode => "decode",
            Self::Panic => "panic",
            Self::Refused => "refused",
            Self::Schema => "schema",
            Self::Invalid => "invalid",
        }
    }
}

/// A failed database call. Its text describes the failure and never holds a bound value. The engine's own error,
/// if there is one, is the [source](StdError::source). A clone is cheap, because one failed commit answers a
/// whole batch.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn schema(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Schema, message)
    }

    pub(crate) fn decode(index: usize, wanted: &str, found: &str) -> Self {
        Self::new(ErrorKind::Decode, format!("column {index} is not {wanted} but {found}"))
    }

    /// An error for a stored value that the caller's type cannot represent: [`ErrorKind::Decode`].
    pub fn unreadable(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            source: Some(Arc::from(why.into())),
            ..Self::new(ErrorKind::Decode, "a stored value cannot be read")
        }
    }

    pub(crate) fn closed() -> Self {
        Self::unavailable("the database is closed")
    }

    /// The same error with another kind and a prefix. An error of one closure that aborts a batch has another
    /// meaning for the other members.
    pub(crate) fn with_kind(mut self, kind: ErrorKind, prefix: &str) -> Self {
        self.kind = kind;
        self.message = format!("{prefix}: {}", self.message).into();
        self
    }

    /// Whether SQLite found the disk full.
    pub(crate) fn is_disk_full(&self) -> bool {
        let source = self.source.as_deref().and_then(|source| source.downcast_ref::<rusqlite::Error>());
        source.and_then(rusqlite::Error::sqlite_error_code) == Some(rusqlite::ErrorCode::DiskFull)
    }

    /// Whether the operating system failed to flush one of SQLite's files.
    pub(crate) fn is_failed_flush(&self) -> bool {
        let source = self.source.as_deref().and_then(|source| source.downcast_ref::<rusqlite::Error>());
        let code = source.and_then(rusqlite::Error::sqlite_error).map(|error| error.extended_code);
        matches!(code, Some(rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC))
    }

    /// Whether the operating system failed to read, write or flush one of SQLite's files.
    pub(crate) fn is_failed_io(&self) -> bool {
        let source = self.source.as_deref().and_then(|source| source.downcast_ref::<rusqlite::Error>());
        source.and_then(rusqlite::Error::sqlite_error_code) == Some(rusqlite::ErrorCode::SystemIoFailure)
    }

    /// The kind, by which the caller decides on its reaction.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let (kind, message) = match &error {
            rusqlite::Error::SqliteFailure(failure, text) => {
                let kind = match failure.code {
                    // The type check of a STRICT table found a mistake of the program, as PostgreSQL's would.
                    Code::ConstraintViolation
                        if failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_DATATYPE =>
                    {
                        ErrorKind::Invalid
                    }
                    Code::ConstraintViolation => ErrorKind::Constraint,
                    Code::DatabaseBusy | Code::DatabaseLocked => ErrorKind::Conflict,
                    Code::OperationInterrupted => ErrorKind::Timeout,
                    Code::Unknown
                    | Code::TypeMismatch
                    | Code::ApiMisuse
                    | Code::ParameterOutOfRange
                    | Code::TooBig
                    | Code::NotFound => ErrorKind::Invalid,
                    _ => ErrorKind::Unavailable,
                };
                (kind, text.clone().unwrap_or_else(|| failure.to_string()))
            }
            // The variant also holds the statement's text; `msg` describes the error without it.
            rusqlite::Error::SqlInputError { msg, .. } => (ErrorKind::Invalid, msg.clone()),
            other => (ErrorKind::Invalid, other.to_string()),
        };
        Self::new(kind, message).because(error)
    }
}
