//! The meaning of PostgreSQL's error codes.

use std::error::Error as _;
use std::fmt;

use crate::{Error, ErrorKind};

/// The reason why the whole closure may run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The transaction conflicted with another one.
    Conflict,
    /// A schema change did not get its lock within the time that it waits for one.
    Locked,
    /// A prepared statement is no longer valid: the schema or the server has changed.
    Stale,
    /// A prepared statement is missing, or its name is taken: the session is another one.
    Foreign,
    /// The connection is lost, and its transaction with it.
    Lost,
    /// A read that ran as one statement sends a second, which must see the first one's snapshot.
    Snapshot,
}

impl Again {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Locked => "locked",
            Self::Stale | Self::Foreign => "stale_statement",
            Self::Lost => "lost_connection",
            Self::Snapshot => "snapshot",
        }
    }
}

/// The server's own text, without the parts that may hold a bound value: details, and the messages of data
/// exceptions.
#[derive(Debug)]
struct ServerMessage {
    code: String,
    message: String,
    constraint: Option<String>,
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}: {}", self.code, self.message)?;
        match &self.constraint {
            Some(name) => write!(f, " (constraint {name})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerMessage {}

/// The meaning of a statement's error, and whether running the closure again may help.
pub(super) fn told(error: &tokio_postgres::Error) -> (Error, Option<Again>) {
    let Some(db) = error.as_db_error() else {
        // An error that is not an answer of the server means that the connection cannot be trusted any more.
        let lost = Error::unavailable("the connection to the database is lost");
        return (
            match error.source() {
                Some(source) => lost.because(ServerMessage {
                    code: "none".into(),
                    message: source.to_string(),
                    constraint: None,
                }),
                None => lost,
            },
            Some(Again::Lost),
        );
    };
    let code = db.code().code();
    let class = &code[..2];
    let (kind, again) = match code {
        "40001" | "40P01" => (ErrorKind::Conflict, Some(Again::Conflict)),
        "0A000" => (ErrorKind::Invalid, Some(Again::Stale)),
        "26000" | "42P05" => (ErrorKind::Unavailable, Some(Again::Foreign)),
        "55P03" => (ErrorKind::Timeout, Some(Again::Locked)),
        "57014" => (ErrorKind::Timeout, None),
        "25006" | "25P03" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => {
            (ErrorKind::Unavailable, Some(Again::Lost))
        }
        _ => match class {
            "08" => (ErrorKind::Unavailable, Some(Again::Lost)),
            "23" => (ErrorKind::Constraint, None),
            "53" | "54" | "58" | "XX" => (ErrorKind::Unavailable, None),
            _ => (ErrorKind::Invalid, None),
        },
    };
    let message = if class == "22" { "a value does not fit its column or parameter" } else { db.message() };
    let said = ServerMessage {
        code: code.to_owned(),
        message: message.to_owned(),
        constraint: db.constraint().map(str::to_owned),
    };
    (Error::new(kind, said.to_string()).because(said), again)
}

/// Whether the server says that it takes no writes, as a former primary does.
pub(super) fn takes_no_writes(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| db.code().code() == "25006")
}

/// Whether the server's answer to a commit says for certain that nothing was committed.
pub(super) fn certainly_rolled_back(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        let code = db.code().code();
        code.starts_with("23") || matches!(code, "40001" | "40P01" | "40002")
    })
}
