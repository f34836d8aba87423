//! A running Ward: the state that requests share, and the tasks beside them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use ward_contract::{Contract, ContractError};
pub use ward_db::{Copied, Progress, Stage, backup};
use ward_db::{Db, Migration, Options, Timestamp, Tx};

use crate::api_keys::secret::KeyId;
use crate::audit::exports::place::Place;
use crate::audit::exports::worker as exporter;
use crate::audit::refusals::Refusals;
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, MasterKey};
use crate::deliveries::worker::{self, Worker};
use crate::error::ApiError;
use crate::http::limits::ClientRates;
use crate::http::{Context, idempotency};
use crate::identity::issuers::{FetchError, Issuers};
use crate::ids::WorkspaceId;
use crate::integrations::outbound::Wire;
use crate::quotas::rate::RequestRates;
use crate::router;
use crate::shares::{self, Holder, Shares};
use crate::vault::{self, Vault, VaultError};
use crate::work::Work;
use crate::{api_keys, closing, contract, deliveries, invitations, workspaces};

/// Every migration, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_workspaces", sql: include_str!("../../../migrations/0001_workspaces.sql") },
    Migration { name: "0002_identity", sql: include_str!("../../../migrations/0002_identity.sql") },
    Migration { name: "0003_integrations", sql: include_str!("../../../migrations/0003_integrations.sql") },
    Migration { name: "0004_calls", sql: include_str!("../../../migrations/0004_calls.sql") },
    Migration { name: "0005_sync", sql: include_str!("../../../migrations/0005_sync.sql") },
    Migration { name: "0006_identity_ends", sql: include_str!("../../../migrations/0006_identity_ends.sql") },
    Migration { name: "0007_indexes", sql: include_str!("../../../migrations/0007_indexes.sql") },
    Migration { name: "0008_endings", sql: include_str!("../../../migrations/0008_endings.sql") },
    Migration { name: "0009_quotas", sql: include_str!("../../../migrations/0009_quotas.sql") },
    Migration {
        name: "0010_unclaimed_and_twilio",
        sql: include_str!("../../../migrations/0010_unclaimed_and_twilio.sql"),
    },
    Migration { name: "0011_audit_exports", sql: include_str!("../../../migrations/0011_audit_exports.sql") },
    Migration { name: "0013_test_rules", sql: include_str!("../../../migrations/0013_test_rules.sql") },
    Migration {
        name: "0014_test_credentials",
        sql: include_str!("../../../migrations/0014_test_credentials.sql"),
    },
    Migration {
        name: "0015_invitation_addresses",
        sql: include_str!("../../../migrations/0015_invitation_addresses.sql"),
    },
];

/// This binary's version, which migrations check.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Pause between two sweeps of rows that are due to lapse or to be deleted.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Rows that one transaction of the sweep touches.
const SWEEP_BATCH: u32 = 500;
/// How long an invitation is kept after its end: as long as its acceptance may be replayed.
const INVITATIONS_KEPT: Duration = Duration::from_hours(24);
/// Keys whose last use is collected between two flushes.
const MOST_LAST_USED: usize = 100_000;
/// Long reads of one workspace that may wait for a reader.
const LONG_READS_WAITING: usize = 32;
/// Last uses that one transaction writes.
const LAST_USED_BATCH: usize = 1_000;

/// The reason why Ward did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be opened or migrated.
    #[error("the database cannot be used: {0}")]
    Database(#[from] ward_db::Error),
    /// The document and the code contradict each other.
    #[error("the contract does not hold: {0}")]
    Contract(#[from] ContractError),
    /// The store of exports cannot be opened.
    #[error("the store of exports cannot be used: {0}")]
    Exports(#[from] object_store::Error),
    /// A setting is wrong or a key's file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client for the issuers' keys cannot be created.
    #[error("issuers: {0}")]
    Issuers(#[from] FetchError),
    /// The database's encoding cannot represent every text.
    #[error(
        "the database's encoding is {0}, which cannot hold every name. Make one in UTF-8 (CREATE DATABASE ward ENCODING 'UTF8' \
         TEMPLATE template0), and move the data there"
    )]
    Encoding(String),
    /// The schema is older than this binary, and this command does not migrate.
    #[error(
        "the database's schema is older than this Ward: {} steps are missing, the first is {}. Run `ward migrate`, or \
         restart the server with this Ward, then run the command again", .0.len(), .0.first().map_or("", |step| step)
    )]
    OldSchema(Vec<String>),
    /// The operator's key is not usable.
    #[error("the master key cannot be used: {0}")]
    Vault(#[from] VaultError),
    /// The database was used with another key.
    #[error(
        "the master key is not the one that this database was first used with. \
         Its sealed values could not be opened, so Ward does not start. Configure the right key. During a rotation, \
         every replica needs the previous keys in former_master_keys"
    )]
    OtherMasterKey,
}

/// The access of a command to the database and to the operator's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The command only reads, and needs no key.
    Read,
    /// The command writes, but needs no key.
    Write,
    /// The command opens or seals secrets, and needs the key that the database is used with.
    Seal,
    /// The command changes state that a server relies on, so no server may run on the file. It uses the
    /// keys that are available.
    Alone,
}

/// The settings, the database and the shared state of one Ward process.
pub struct App {
    /// The settings, after all sources are merged and checked.
    pub config: Config,
    /// The open database.
    pub db: Db,
    /// The source of timestamps.
    pub clock: Clock,
    /// The document that is served and that validates requests.
    pub contract: Contract,
    /// Rates per client; `None` if they are off.
    pub rates: Option<ClientRates>,
    /// The issuers whose tokens are accepted.
    pub issuers: Arc<Issuers>,
    /// The operator's keys, which seal and open secrets.
    pub vault: Arc<Vault>,
    /// The only client for outbound calls.
    pub wire: Wire,
    /// The pool of CPU work whose amount a tenant decides.
    pub work: Work,
    /// The engine's long readers, shared by workspaces. A request takes a share before a long read.
    pub long_reads: Shares,
    /// Requests that held a runtime thread for too long.
    #[cfg(feature = "watch")]
    pub watch: crate::http::watch::Watch,
    /// Refusals that wait for the next flush.
    pub refusals: Refusals,
    /// Last uses that wait for the next flush.
    pub last_used: LastUsed,
    /// Wakes and stops the delivery workers.
    pub sync: deliveries::Wake,
    /// Requests per second of each workspace.
    pub request_rates: RequestRates,
    /// Wakes the task that closes the rows of endings.
    pub ended: Notify,
    /// The store of exports; `None` if exports are off.
    pub exports: Option<Place>,
    /// Wakes and stops the export worker.
    pub export_wake: deliveries::Wake,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    flushing: tokio::sync::Mutex<()>,
    delivering: Mutex<Option<JoinHandle<()>>>,
}

impl App {
    /// Opens the database as its only server, migrates it, and checks the key and the document. A key is
    /// created only beside a database that was never used with one.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let opened = config.clone();
        let (db, schema) = blocking(move || {
            let db = Db::open(&opened.database, Options { serve_lock: true, ..options(&opened) })?;
            let schema = db.schema()?;
            Ok::<_, OpenError>((db, schema))
        })
        .await?;
        let encoding = db.encoding().await?;
        if !ward_db::holds_every_text(&encoding) {
            return Err(OpenError::Encoding(encoding));
        }
        if config::find_master_key(&config.master_key)?.is_none()
            && let MasterKey::File { path, create } = &config.master_key
        {
            // The first migration creates the table that records keys, and no server runs before it is
            // complete.
            let migrated = schema.iter().any(|step| step.migration != MIGRATIONS[0].name);
            if migrated && db.read("vault.is_used", vault::is_used).await? {
                return Err(config::lost(path).into());
            }
            if *create {
                config::create_master_key(&config.master_key)?;
                tracing::warn!(
                    path = %path.display(),
                    "created a new master key: keep a copy of it, because secrets sealed under it cannot be read without it"
                );
            }
        }
        blocking(move || Self::on(config, db, Clock::default())).await
    }

    /// Opens the database for a command that may run beside a server. Blocking.
    pub fn open_beside(config: Config, access: Access) -> Result<Arc<Self>, OpenError> {
        let read_only = access == Access::Read;
        let serve_lock = access == Access::Alone;
        let how = Options { create: false, read_only, serve_lock, ..options(&config) };
        let db = Db::open(&config.database, how)?;
        let compared = db.compare(MIGRATIONS, VERSION)?;
        if !compared.missing.is_empty() {
            return Err(OpenError::OldSchema(compared.missing));
        }
        let vault = match access {
            Access::Read | Access::Write => Vault::without_key([])?,
            Access::Seal => vault_of(&config)?,
            Access::Alone => keys_at_hand(&config)?,
        };
        Self::with(config, db, Clock::default(), vault)
    }

    /// A Ward on an open database, which it migrates. Blocking.
    pub fn on(config: Config, db: Db, clock: Clock) -> Result<Arc<Self>, OpenError> {
        db.migrate(MIGRATIONS, VERSION)?;
        let vault = vault_of(&config)?;
        let exports = config.exports.as_ref().map(Place::open).transpose()?;
        Self::build(config, db, clock, vault, exports)
    }

    /// A Ward with these keys on a migrated database, without exports.
    pub(crate) fn with(config: Config, db: Db, clock: Clock, vault: Vault) -> Result<Arc<Self>, OpenError> {
        Self::build(config, db, clock, vault, None)
    }

    fn build(
        config: Config,
        db: Db,
        clock: Clock,
        vault: Vault,
        exports: Option<Place>,
    ) -> Result<Arc<Self>, OpenError> {
        let contract = contract::load_for(router::RULES, &config.platform)?.under(config.path_prefix())?;
        let vault = Arc::new(vault);
        let wire = Wire::new(&config, &vault)?;
        let long_reads = long_reads(&db);
        let app = Arc::new(Self {
            rates: ClientRates::new(&config.rates),
            issuers: Arc::new(Issuers::new(&config.issuers, &clock)?),
            config,
            db,
            clock,
            contract,
            vault,
            wire,
            work: Work::default(),
            long_reads,
            #[cfg(feature = "watch")]
            watch: crate::http::watch::Watch::default(),
            refusals: Refusals::default(),
            last_used: LastUsed::default(),
            sync: deliveries::Wake::default(),
            request_rates: RequestRates::default(),
            ended: Notify::new(),
            exports,
            export_wake: deliveries::Wake::default(),
            tasks: Mutex::new(Vec::new()),
            flushing: tokio::sync::Mutex::default(),
            delivering: Mutex::new(None),
        });
        Ok(app)
    }

    /// Migrates a database, and returns the applied steps.
    pub fn migrate(config: &Config) -> Result<ward_db::Migrated, OpenError> {
        let db = Db::open(&config.database, options(config))?;
        let migrated = db.migrate(MIGRATIONS, VERSION)?;
        db.close();
        Ok(migrated)
    }

    /// Copies an installation from a file without a running server into an empty database on a server.
    pub async fn copy(
        from: &str,
        to: &str,
        progress: impl FnMut(Progress<'_>),
    ) -> Result<Vec<Copied>, OpenError> {
        let source = Db::open(from, Options { serve_lock: true, create: false, ..Options::default() })?;
        let target = Db::open(to, Options::default())?;
        let copied = source.copy_to(&target, MIGRATIONS, VERSION, progress).await;
        // Closing joins threads, which would block a thread of the runtime.
        let closing = tokio::task::spawn_blocking(move || {
            target.close();
            source.close();
        });
        let _ = closing.await;
        Ok(copied?)
    }

    /// Refuses a database that may have values sealed under a key that is not configured. The first server
    /// to come records its key.
    pub async fn check_master_key(&self) -> Result<(), OpenError> {
        let known = self.vault.check_values();
        let noted =
            self.db.write("vault.note_check_value", move |tx| vault::note_check_value(tx, &known)).await?;
        if noted { Ok(()) } else { Err(OpenError::OtherMasterKey) }
    }

    /// Runs a long read for a workspace, when a reader is free for it.
    ///
    /// # Errors
    /// 429 if too many long reads of this workspace are waiting, and the closure's own errors.
    pub async fn read_long<T, E>(
        &self,
        workspace: WorkspaceId,
        name: &'static str,
        read: impl FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: From<ward_db::Error> + Into<ApiError> + Send + 'static,
    {
        let share = self.long_reads.take(Holder::Workspace(workspace), 1).await;
        let _share = share.map_err(ApiError::share_used_up)?;
        self.db.read_long(name, read).await.map_err(Into::into)
    }

    /// Starts the tasks that run beside requests.
    pub fn start_background(self: &Arc<Self>) {
        let flushing = self.clone();
        let sweeping = self.clone();
        let closing = self.clone();
        let issuers = self.issuers.clone();
        let exporting = self.clone();
        self.tasks.lock().extend([
            tokio::spawn(async move { issuers.warm().await }),
            tokio::spawn(exporter::keep_going(exporting)),
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(flushing.config.flush_interval).await;
                    flushing.flush().await;
                }
            }),
            tokio::spawn(async move {
                loop {
                    sweeping.sweep_due().await;
                    tokio::time::sleep(SWEEP_INTERVAL).await;
                }
            }),
            tokio::spawn(async move {
                loop {
                    closing.close_ended().await;
                    let _ = tokio::time::timeout(SWEEP_INTERVAL, closing.ended.notified()).await;
                }
            }),
        ]);
        *self.delivering.lock() = Some(tokio::spawn(worker::keep_going(Arc::new(Worker::of(self)))));
    }

    /// Waits until the running deliveries are settled, up to `shutdown_time` after the worker was told to
    /// stop. The next worker searches the EHR for deliveries that were not settled.
    pub async fn finish_deliveries(&self) {
        self.sync.stop();
        let Some(mut delivering) = self.delivering.lock().take() else { return };
        let since = self.sync.stopped_at().unwrap_or_else(Instant::now);
        let until = since + self.config.limits.shutdown_time;
        if tokio::time::timeout_at(until, &mut delivering).await.is_err() {
            tracing::warn!(
                "deliveries did not end within shutdown_time; the next worker will search the EHR before it sends them again"
            );
            delivering.abort();
        }
    }

    /// Writes the last uses and refusals that were collected in memory.
    pub async fn flush(&self) {
        let _one_at_a_time = self.flushing.lock().await;
        self.last_used.flush(&self.db).await;
        self.refusals.flush(&self.db).await;
    }

    /// Lapses due workspaces, deletes old rows and closes the rows of endings.
    pub async fn sweep(&self) {
        self.sweep_due().await;
        self.close_ended().await;
    }

    /// Lapses due workspaces and deletes old rows, in transactions small enough to let other writes in
    /// between.
    async fn sweep_due(&self) {
        loop {
            let now = self.clock.now();
            let swept = self.db.write("app.sweep", move |tx| sweep_some(tx, now)).await;
            match swept {
                Ok(due) if due < SWEEP_BATCH as usize => return,
                Ok(_) => {}
                Err(error) => return failed("sweep", &error),
            }
        }
    }

    /// Closes the rows of all endings, in steps.
    pub async fn close_ended(&self) {
        loop {
            let now = self.clock.now();
            match self.db.write("app.close", move |tx| closing::close_some(tx, now)).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return failed("the closing of ended rows", &error),
            }
        }
    }

    /// Stops the background tasks, flushes the collected data and closes the database.
    pub async fn shutdown(&self) {
        self.finish_deliveries().await;
        {
            // A running flush has taken data that it has not written yet.
            let _none_under_way = self.flushing.lock().await;
            for task in self.tasks.lock().drain(..) {
                task.abort();
            }
        }
        self.flush().await;
        let db = self.db.clone();
        let closed = tokio::task::spawn_blocking(move || db.close()).await;
        if closed.is_err() {
            tracing::error!("the database did not close cleanly; the next start recovers it from its log");
        }
    }
}

/// Logs the failure of a background task.
fn failed(task: &str, error: &ApiError) {
    let cause = error.cause().map(ToString::to_string);
    tracing::error!(code = error.code(), cause, "{task} failed; will retry");
}

/// Handles up to a batch of every kind of due rows. Returns the number of due rows of the most numerous
/// kind.
fn sweep_some(tx: &mut Tx<'_>, now: Timestamp) -> Result<usize, ApiError> {
    let context = Context::of_time(now);
    let lapsed = workspaces::lapse_due(tx, now, SWEEP_BATCH)?;
    for workspace in &lapsed {
        workspaces::actions::record_lapse(tx, &context, *workspace)?;
    }
    let answers = idempotency::sweep(tx, now, SWEEP_BATCH)?;
    let expired = invitations::settle_expired(tx, now, SWEEP_BATCH)?;
    let invitations = invitations::forget_old(tx, now.saturating_sub(INVITATIONS_KEPT), SWEEP_BATCH)?;
    closing::measure(tx, now)?;
    Ok(lapsed.len().max(answers).max(invitations).max(expired))
}

/// Opens the database of these settings read-only. Blocking.
pub(crate) fn open_to_read(config: &Config) -> Result<Db, ward_db::Error> {
    Db::open(&config.database, Options { create: false, read_only: true, ..options(config) })
}

/// The keys that the settings name. It creates no file.
fn vault_of(config: &Config) -> Result<Vault, OpenError> {
    let former = config::load_former_keys(config)?;
    let former = former.iter().map(|key| &**key);
    Ok(Vault::with_former(&*config::load_master_key(&config.master_key)?, former)?)
}

/// As [`vault_of`], but without a current key if its file does not exist or the settings name none.
pub fn keys_at_hand(config: &Config) -> Result<Vault, OpenError> {
    let former = config::load_former_keys(config)?;
    let former = former.iter().map(|key| &**key);
    Ok(match config::find_master_key(&config.master_key)? {
        Some(key) => Vault::with_former(&key, former)?,
        None => Vault::without_key(former)?,
    })
}

/// Runs blocking work on another thread than the runtime's.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

/// The options of the database. The closures of a request end with the request, by its `Deadline`.
/// Background tasks have at least the usual time, and more if requests have more.
fn options(config: &Config) -> Options {
    let usual = Options::default();
    let time = config.limits.request_time;
    Options {
        closure_time: usual.closure_time.max(time * 2 / 3),
        statement_time: usual.statement_time.max(time * 8 / 15),
        connections: config.database_connections.unwrap_or(usual.connections),
        ..usual
    }
}

/// The engine's long readers, half of which one workspace may use.
fn long_reads(db: &Db) -> Shares {
    let total = u32::try_from(db.long_readers()).unwrap_or(u32::MAX);
    Shares::new("long_reads", shares::Limits { total, each: total / 2, waiting_each: LONG_READS_WAITING })
}

/// The last successful use of each key since the last flush.
#[derive(Default)]
pub struct LastUsed {
    gathered: Mutex<HashMap<KeyId, Timestamp>>,
}

impl LastUsed {
    /// Collects a use of a key.
    pub fn note(&self, key: KeyId, at: Timestamp) {
        let mut gathered = self.gathered.lock();
        if let Some(last) = gathered.get_mut(&key) {
            *last = at.max(*last);
        } else if gathered.len() < MOST_LAST_USED {
            gathered.insert(key, at);
        } else {
            metrics::counter!("ward_last_used_dropped_total").increment(1);
        }
    }

    /// Writes the collected uses. Those that cannot be written are collected again.
    pub async fn flush(&self, db: &Db) {
        let mut gathered: Vec<(KeyId, Timestamp)> =
            std::mem::take(&mut *self.gathered.lock()).into_iter().collect();
        // Every replica locks the rows in the same order, so that no two wait for each other.
        gathered.sort_unstable_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        for batch in gathered.chunks(LAST_USED_BATCH) {
            let uses = batch.to_vec();
            let written = db
                .write("api_keys.last_used", move |tx: &mut Tx<'_>| {
                    uses.iter().try_for_each(|(key, at)| api_keys::store_last_used(tx, *key, *at))
                })
                .await;
            if let Err(error) = written {
                let error: ward_db::Error = error;
                tracing::error!(%error, keys = batch.len(), "cannot write the last uses of keys; they are kept for the next flush");
                for (key, at) in batch {
                    self.note(*key, *at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_s_limits_follow_the_settings() {
        let usual = Options::default();
        let mut config = Config::default();
        assert_eq!(options(&config).connections, usual.connections);
        assert_eq!(options(&config).closure_time, Duration::from_secs(10));
        config.database_connections = Some(3);
        config.limits.request_time = Duration::from_mins(1);
        let chosen = options(&config);
        assert_eq!(chosen.connections, 3);
        assert_eq!(
            (chosen.closure_time, chosen.statement_time),
            (Duration::from_secs(40), Duration::from_secs(32))
        );
        config.limits.request_time = Duration::from_millis(100);
        assert_eq!(options(&config).statement_time, usual.statement_time, "the sweep has no less for that");
    }
}
