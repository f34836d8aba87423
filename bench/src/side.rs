//! The measured servers.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::workload::Case;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Engine {
    /// SQLite, with the data in a file.
    Sqlite,
    /// PostgreSQL, with the data on a server.
    Postgres,
}

/// One of the servers that answer the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The whole product on this engine.
    Ward(Engine),
    /// A ready answer behind everything that the routes of the product share.
    Fixed,
    /// A ready answer from a bare axum router.
    Bare,
    /// The usual alternative: a framework that parses, validates and injects, on a fast server and driver.
    Peer(Engine),
    /// The same peer with a bypass of its framework on these routes, the fastest possible form of it.
    Shortcut(Engine),
    /// Rows like those of the product, through its engine layer and without HTTP.
    Raw(Engine),
}

impl Side {
    /// All sides, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::Ward(Engine::Sqlite),
        Self::Ward(Engine::Postgres),
        Self::Peer(Engine::Sqlite),
        Self::Peer(Engine::Postgres),
        Self::Shortcut(Engine::Sqlite),
        Self::Shortcut(Engine::Postgres),
        Self::Fixed,
        Self::Bare,
        Self::Raw(Engine::Sqlite),
        Self::Raw(Engine::Postgres),
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ward(Engine::Sqlite) => "Ward (SQLite)",
            Self::Ward(Engine::Postgres) => "Ward (PostgreSQL)",
            Self::Fixed => "fixed route in Ward",
            Self::Bare => "bare axum",
            Self::Peer(Engine::Sqlite) => "FastAPI (SQLite)",
            Self::Peer(Engine::Postgres) => "FastAPI (PostgreSQL)",
            Self::Shortcut(Engine::Sqlite) => "FastAPI, short routes (SQLite)",
            Self::Shortcut(Engine::Postgres) => "FastAPI, short routes (PostgreSQL)",
            Self::Raw(Engine::Sqlite) => "engine alone (SQLite)",
            Self::Raw(Engine::Postgres) => "engine alone (PostgreSQL)",
        }
    }

    /// The engine, if the side has a database.
    pub const fn engine(self) -> Option<Engine> {
        match self {
            Self::Ward(engine) | Self::Peer(engine) | Self::Shortcut(engine) | Self::Raw(engine) => {
                Some(engine)
            }
            Self::Fixed | Self::Bare => None,
        }
    }

    /// Whether the side has this case. The engine alone has no callers, so it has only cases that need none, and the
    /// gate itself.
    pub const fn has(self, case: Case) -> bool {
        !matches!(self, Self::Raw(_)) || case.reads() || matches!(case, Case::Bootstrap)
    }

    /// The Ward for the comparison: the one on the same engine, or else the first measured one.
    pub fn ward(self, among: &[Engine]) -> Option<Self> {
        let first = among.first().copied();
        let engine = match self {
            Self::Peer(engine) | Self::Shortcut(engine) | Self::Raw(engine) => Some(engine),
            Self::Ward(_) | Self::Fixed | Self::Bare => first,
        };
        engine.map(Self::Ward)
    }
}
