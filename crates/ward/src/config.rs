//! The settings in force, resolved once at start. No other part of Ward reads a flag, a file or the
//! environment.
//!
//! [`settings::SETTINGS`] is the one table of settings. [`RawSettings`] gathers the given values and their
//! sources. [`RawSettings::resolve`] turns them into a [`Config`], or into a list of every problem.

mod draft;
mod exports;
pub mod issuers;
mod leaks;
mod master_key;
mod outbound;
pub mod page;
mod platform;
mod raw;
mod setting;
pub mod settings;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::api_keys::ceilings::Ceiling;

pub use ward_server::tls::TlsFiles;

pub use self::exports::{Bucket, Exports};
pub use self::leaks::LeakReportKey;
pub(crate) use self::master_key::lost;
pub use self::master_key::{create_master_key, find_master_key, load_former_keys, load_master_key};
pub use self::outbound::Outbound;
pub use self::platform::Platform;
pub use self::raw::{ConfigError, EffectiveSetting, RawSettings, ResolvedSettings, SettingProblem, Source};
pub use self::setting::Setting;

/// The settings of a running Ward, already checked against each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address of the API. Port 0 picks a free port.
    pub listen: SocketAddr,
    /// `sqlite:PATH`, the path relative to the working directory.
    pub database: String,
    /// The most connections to a `PostgreSQL` database for reads and writes; long reads use others. `None`
    /// derives the number from the cores.
    pub database_connections: Option<usize>,
    /// The scheme, authority and path prefix under which clients reach Ward, if they differ from the
    /// listener's, without a slash at the end.
    pub public_url: Option<String>,
    /// The store of audit exports. `None` turns exports off.
    pub exports: Option<Exports>,
    /// The callers that may create workspaces without a key.
    pub bootstrap: Bootstrap,
    /// The time after which an unclaimed workspace lapses and its slug is free again.
    pub unclaimed_lifetime: Duration,
    /// The time for which a renamed workspace keeps its former slug.
    pub slug_quarantine: Duration,
    /// The time for which the owners of an archived workspace can restore it.
    pub purge_after: Duration,
    /// The most workspaces that may be unclaimed at once, over all replicas.
    pub unclaimed_limit: u32,
    /// The most unclaimed workspaces of one client address. The bound is enforced together with the rates.
    pub unclaimed_per_address: u32,
    /// Bounds on the requests and connections of clients.
    pub limits: ward_server::Limits,
    /// The largest request body, in bytes. A larger one gets 413.
    pub body_bytes: usize,
    /// The deepest nesting of a JSON body. A deeper one gets 422.
    pub json_depth: usize,
    /// Limits on how often a client address or workspace may fail or create something.
    pub rates: Rates,
    /// Proxies whose `x-forwarded-for` entries are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The web origins whose pages may call Ward. An empty list turns CORS off.
    pub cors_origins: Vec<String>,
    /// Origins of other services. `authorize` accepts DPoP proofs for requests to them.
    pub gate_origins: Vec<String>,
    /// Certificate chain and private key of the listener.
    pub tls: Option<TlsFiles>,
    /// The address of `/metrics`. `None` turns the metrics listener off.
    pub metrics_listen: Option<SocketAddr>,
    /// Whether the operator set `metrics_listen`. Then a failure to bind the address is an error, not a
    /// warning.
    pub metrics_required: bool,
    /// The source of the operator's sealing key.
    pub master_key: MasterKey,
    /// Issuers whose access tokens are accepted in addition to API keys. With an empty list, no token is valid.
    pub issuers: Vec<issuers::IssuerConfig>,
    /// The public keys that sign reports about leaked keys. With an empty list, no report is accepted.
    pub leak_report_keys: Vec<LeakReportKey>,
    /// Whether DPoP proofs need a nonce of this installation.
    pub dpop_nonces: bool,
    /// Previous master keys. They open values that were sealed before, and seal nothing.
    pub former_master_keys: Vec<FormerKey>,
    /// Files with previous master keys, read like the file of the current key.
    pub former_master_key_files: Vec<PathBuf>,
    /// Bounds on calls to outside systems, and the roots that they trust.
    pub outbound: Outbound,
    /// Ward's region, and bounds of the platform's later contract.
    pub platform: Platform,
    /// The quotas of every workspace whose operator has not set others.
    pub quotas: crate::quotas::Limits,
    /// The longest lives of new keys, by role and environment.
    pub key_ceilings: Arc<[Ceiling]>,
    /// The interval at which last-used times and aggregated refusals are written.
    pub flush_interval: Duration,
    pub log: LogFormat,
    /// The filter of log events: a level, or `tracing` directives.
    pub log_filter: String,
}

impl Config {
    /// The path prefix under which clients reach Ward, without a slash at its end; empty when there is none.
    pub fn path_prefix(&self) -> &str {
        let rest =
            self.public_url.as_deref().and_then(|url| url.split_once("://")).map_or("", |(_, rest)| rest);
        rest.find('/').map_or("", |at| rest[at..].trim_end_matches('/'))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if the output is a terminal, otherwise JSON.
    Auto,
    /// One line of text per event.
    Text,
    /// One line with a JSON object per event.
    Json,
}

/// The callers that may use `POST /v1/workspaces`.
#[derive(Clone)]
pub enum Bootstrap {
    /// Every caller, with or without a credential.
    Open,
    /// Callers that present this bearer token.
    Token(Zeroizing<String>),
    /// No caller: the operation answers every request with 403.
    Closed,
}

// Written by hand because a derived one would print the token into the first log line that holds a `Config`.
impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Token(_) => "Token(..)",
            Self::Closed => "Closed",
        })
    }
}

/// The source of the operator's 32-byte sealing key.
#[derive(Clone)]
pub enum MasterKey {
    /// The key itself, given by a setting.
    Given(Zeroizing<[u8; 32]>),
    /// The file that contains the key, in base64.
    File {
        /// The path of the file, as set or derived from the database.
        path: PathBuf,
        /// Whether a server may make the file, with mode 0600 and a notice, beside a new database.
        create: bool,
    },
    /// The settings name no key, and a database on a server has no folder for a default file. Commands that
    /// need no key still run.
    Unset,
}

// Written by hand for the same reason.
impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given(..)"),
            Self::Unset => f.write_str("Unset"),
            Self::File { path, create } => {
                f.debug_struct("File").field("path", path).field("create", create).finish()
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct FormerKey(pub Zeroizing<[u8; 32]>);

impl fmt::Debug for FormerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FormerKey(..)")
    }
}

/// Rates of clients; see `http::limits`.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The setting `rates` as it was given.
    pub mode: RatesMode,
    /// Whether rates are enforced, as `mode` and the listener decide.
    pub enforced: bool,
    /// The rate of refused credentials per client address.
    pub failed_credentials: Rate,
    /// The rate of refused credentials per workspace in the path.
    pub failed_in_workspace: Rate,
    /// The rate of workspaces created without a key, per client address.
    pub bootstrap: Rate,
    /// The rate of claims per client address. Beyond it, only claims that fail are refused.
    pub claims: Rate,
    /// Requests of public JWK sets, per client address.
    pub key_sets: Rate,
    /// The most addresses or workspaces that one rate remembers. It forgets the least recently seen first.
    pub addresses: usize,
}

/// The listeners on which rates are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RatesMode {
    /// Enforced unless Ward listens on loopback only.
    #[default]
    Auto,
    On,
    Off,
}

/// `burst` at once, refilled at `per_minute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once.
    pub burst: u32,
    /// How many come back per minute.
    pub per_minute: u32,
}

impl Config {
    /// The path of the `SQLite` file; `None` for a database on a server.
    pub fn database_file(&self) -> Option<PathBuf> {
        value::sqlite_path(&self.database)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            database: "sqlite:ward.db".to_owned(),
            database_connections: None,
            exports: None,
            public_url: None,
            bootstrap: Bootstrap::Open,
            unclaimed_lifetime: Duration::from_hours(24),
            slug_quarantine: Duration::from_hours(24 * 365),
            purge_after: Duration::from_hours(24 * 90),
            unclaimed_limit: 10_000,
            unclaimed_per_address: 100,
            limits: ward_server::Limits::default(),
            body_bytes: 256 * 1024,
            json_depth: 32,
            rates: Rates::default(),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            gate_origins: Vec::new(),
            tls: None,
            metrics_listen: Some(SocketAddr::from(([127, 0, 0, 1], 9090))),
            metrics_required: false,
            master_key: MasterKey::File { path: PathBuf::from("ward.key"), create: true },
            issuers: Vec::new(),
            leak_report_keys: Vec::new(),
            dpop_nonces: false,
            former_master_keys: Vec::new(),
            former_master_key_files: Vec::new(),
            outbound: Outbound::default(),
            platform: Platform::default(),
            quotas: crate::quotas::Limits::default(),
            key_ceilings: Arc::default(),
            flush_interval: Duration::from_mins(1),
            log: LogFormat::Auto,
            log_filter: "info".to_owned(),
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            mode: RatesMode::Auto,
            enforced: false,
            failed_credentials: Rate { burst: 600, per_minute: 60 },
            failed_in_workspace: Rate { burst: 1_200, per_minute: 120 },
            bootstrap: Rate { burst: 60, per_minute: 60 },
            claims: Rate { burst: 60, per_minute: 60 },
            key_sets: Rate { burst: 600, per_minute: 600 },
            addresses: 65_536,
        }
    }
}
