//! Who is measured.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::workload::Case;

/// Where the data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Engine {
    /// In a file.
    Sqlite,
    /// On a server.
    Postgres,
}

/// One of those that answer the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The product.
    Ward(Engine),
    /// A ready answer behind all that the product's routes share.
    Fixed,
    /// A ready answer behind nothing.
    Bare,
    /// What a user would otherwise write: a framework that parses, validates and injects, on a fast server and driver.
    Peer(Engine),
    /// The same peer with its framework passed by on these routes, which is as far as tuning goes there.
    Shortcut(Engine),
    /// Rows like the product's, through its engine layer and without HTTP.
    Raw(Engine),
}

impl Side {
    /// In the order of the tables.
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

    /// What it is called in the tables.
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

    /// Where its data is, if it has any.
    pub const fn engine(self) -> Option<Engine> {
        match self {
            Self::Ward(engine) | Self::Peer(engine) | Self::Shortcut(engine) | Self::Raw(engine) => {
                Some(engine)
            }
            Self::Fixed | Self::Bare => None,
        }
    }

    /// Whether it has such a case. The engine alone knows no caller, so it has only what needs none or is the gate itself.
    pub const fn has(self, case: Case) -> bool {
        !matches!(self, Self::Raw(_)) || case.reads() || matches!(case, Case::Bootstrap)
    }

    /// The Ward that it is compared with: the one on its own engine, else the first that is there.
    pub fn ward(self, among: &[Engine]) -> Option<Self> {
        let first = among.first().copied();
        let engine = match self {
            Self::Peer(engine) | Self::Shortcut(engine) | Self::Raw(engine) => Some(engine),
            Self::Ward(_) | Self::Fixed | Self::Bare => first,
        };
        engine.map(Self::Ward)
    }
}
