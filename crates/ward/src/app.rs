//! A running Ward: what every request shares, and what runs beside the requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
pub use ward_db::{Copied, Progress, Stage, backup};
use ward_db::{Db, Migration, Options, Timestamp, Tx};

use crate::api_keys::secret::KeyId;
use crate::audit::exports::place::Place;
use crate::audit::exports::worker as exporter;
use crate::audit::refusals::Refusals;
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, MasterKey};
use crate::error::ApiError;
use crate::http::contract::{Contract, ContractError};
use crate::http::limits::ClientRates;
use crate::http::{Context, idempotency};
use crate::identity::issuers::{FetchError, Issuers};
use crate::ids::WorkspaceId;
use crate::integrations::outbound::Wire;
use crate::members::invitations;
use crate::quotas::rate::RequestRates;
use crate::router;
use crate::shares::{self, Holder, Shares};
use crate::sync::worker::{self, Worker};
use crate::vault::{self, Vault, VaultError};
use crate::work::Work;
use crate::{api_keys, closing, sync, workspaces};

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

/// This binary's version, as migrations judge it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How often what is due lapses and what is old is forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// How many rows one sweep's transaction touches.
const SWEEP_BATCH: u32 = 500;
/// How long an invitation is kept after its end: as long as its acceptance may be repeated.
const INVITATIONS_KEPT: Duration = Duration::from_hours(24);
/// How many keys' last uses are gathered between two flushes.
const MOST_LAST_USED: usize = 100_000;
/// Long reads of one workspace that may wait for their turn.
const LONG_READS_WAITING: usize = 32;
/// How many last uses one transaction writes.
const LAST_USED_BATCH: usize = 1_000;

/// Why Ward did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error("the database cannot be used: {0}")]
    Database(#[from] ward_db::Error),
    /// The document and the code disagree.
    #[error("the contract does not hold: {0}")]
    Contract(#[from] ContractError),
    /// The place for exports.
    #[error("the place for exports cannot be used: {0}")]
    Exports(#[from] object_store::Error),
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The issuers.
    #[error("issuers: {0}")]
    Issuers(#[from] FetchError),
    /// The database's encoding holds not every text.
    #[error(
        "the database's encoding is {0}, which cannot hold every name. Make one in UTF-8 (CREATE DATABASE ward ENCODING 'UTF8' \
         TEMPLATE template0), and move the data there"
    )]
    Encoding(String),
    /// The schema is older than this binary, and the command is not the one that migrates.
    #[error(
        "the database's schema is older than this Ward: {} steps are missing, the first is {}. Run `ward migrate`, or \
         restart the server with this Ward, then run the command again", .0.len(), .0.first().map_or("", |step| step)
    )]
    OldSchema(Vec<String>),
    /// The operator's key.
    #[error("the master key cannot be used: {0}")]
    Vault(#[from] VaultError),
    /// The database is used with another key.
    #[error(
        "the master key is not the one this database was first used with; \
         what is sealed in it could not be opened, so Ward does not start. During a rotation of keys, every replica has \
         the other ones as former keys"
    )]
    OtherMasterKey,
}

/// The access that a command needs to the database and to the operator's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It only looks: it writes nothing, and needs no key.
    Read,
    /// It writes, and needs no key.
    Write,
    /// It opens or seals secrets: it needs the key that the database is used with.
    Seal,
    /// It changes what a server relies on, so no server may run on the file. It takes the keys that are at hand.
    Alone,
}

/// A running Ward.
pub struct App {
    /// The settings in force.
    pub config: Config,
    /// The database.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// The document that is served and that validates.
    pub contract: Contract,
    /// Rates of clients; `None` when off.
    pub rates: Option<ClientRates>,
    /// Whose tokens are accepted.
    pub issuers: Arc<Issuers>,
    /// The operator's key.
    pub vault: Arc<Vault>,
    /// The one client of everything that is called outside.
    pub wire: Wire,
    /// CPU work whose amount a tenant decides.
    pub work: Work,
    /// The engine's long readers, divided by workspace. A request takes a share of them before a long read.
    pub long_reads: Shares,
    /// The requests that held a runtime thread for too long.
    #[cfg(feature = "watch")]
    pub watch: crate::http::watch::Watch,
    /// Refusals waiting to be recorded.
    pub refusals: Refusals,
    /// Last uses waiting to be written.
    pub last_used: LastUsed,
    /// Wakes the workers that deliver to EHRs.
    pub sync: sync::Wake,
    /// Requests a second of each workspace.
    pub request_rates: RequestRates,
    /// Wakes the task that closes ended rows.
    pub ended: Notify,
    /// The place for exports of audit events; `None` when exports are off.
    pub exports: Option<Place>,
    /// Wakes the worker that writes exports.
    pub export_wake: sync::Wake,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    flushing: tokio::sync::Mutex<()>,
    delivering: Mutex<Option<JoinHandle<()>>>,
}

impl App {
    /// Opens the database as its only server, migrates it, and checks that this key and this document fit. A key is made
    /// only beside a database that was never used with one.
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
            // The first migration makes the table that the keys are noted in, and no server runs before it is complete.
            let migrated = schema.iter().any(|step| step.migration != MIGRATIONS[0].name);
            if migrated && db.read("vault.is_used", vault::is_used).await? {
                return Err(config::lost(path).into());
            }
            if *create {
                config::create_master_key(&config.master_key)?;
                tracing::warn!(
                    path = %path.display(),
                    "made a new key for sealing secrets: keep a copy of it, what it sealed cannot be read without it"
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

    /// A Ward on a database that is open already. Blocking.
    pub fn on(config: Config, db: Db, clock: Clock) -> Result<Arc<Self>, OpenError> {
        db.migrate(MIGRATIONS, VERSION)?;
        let vault = vault_of(&config)?;
        let exports = config.exports.as_ref().map(Place::open).transpose()?;
        Self::build(config, db, clock, vault, exports)
    }

    /// The same with these keys, on a database that is migrated.
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
        let contract = Contract::load_for(router::RULES, &config.platform)?.under(config.path_prefix())?;
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
            sync: sync::Wake::default(),
            request_rates: RequestRates::default(),
            ended: Notify::new(),
            exports,
            export_wake: sync::Wake::default(),
            tasks: Mutex::new(Vec::new()),
            flushing: tokio::sync::Mutex::default(),
            delivering: Mutex::new(None),
        });
        Ok(app)
    }

    /// Migrates a database and says which steps that took.
    pub fn migrate(config: &Config) -> Result<ward_db::Migrated, OpenError> {
        let db = Db::open(&config.database, options(config))?;
        let migrated = db.migrate(MIGRATIONS, VERSION)?;
        db.close();
        Ok(migrated)
    }

    /// Copies an installation from a file that no server holds into an empty database on a server.
    pub async fn copy(
        from: &str,
        to: &str,
        progress: impl FnMut(Progress<'_>),
    ) -> Result<Vec<Copied>, OpenError> {
        let source = Db::open(from, Options { serve_lock: true, create: false, ..Options::default() })?;
        let target = Db::open(to, Options::default())?;
        let copied = source.copy_to(&target, MIGRATIONS, VERSION, progress).await;
        // Closing joins threads, which is nothing for a runtime's own.
        let closing = tokio::task::spawn_blocking(move || {
            target.close();
            source.close();
        });
        let _ = closing.await;
        Ok(copied?)
    }

    /// Refuses a database in which something may be sealed under a key that is not here. Whoever comes first decides.
    pub async fn check_master_key(&self) -> Result<(), OpenError> {
        let known = self.vault.check_values();
        let noted =
            self.db.write("vault.note_check_value", move |tx| vault::note_check_value(tx, &known)).await?;
        if noted { Ok(()) } else { Err(OpenError::OtherMasterKey) }
    }

    /// Runs a long read for a workspace, when it is the workspace's turn.
    ///
    /// # Errors
    /// 429 when as many long reads of this workspace wait as may; the closure's own errors.
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

    /// Starts what runs beside the requests.
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

    /// Waits until the deliveries under way have ended and are settled, up to `shutdown_time` after the worker was told to
    /// begin no more. What is not settled by then is looked for in the EHR before it is sent again.
    pub async fn finish_deliveries(&self) {
        self.sync.stop();
        let Some(mut delivering) = self.delivering.lock().take() else { return };
        let since = self.sync.stopped_at().unwrap_or_else(Instant::now);
        let until = since + self.config.limits.shutdown_time;
        if tokio::time::timeout_at(until, &mut delivering).await.is_err() {
            tracing::warn!("deliveries under way did not end in time; the next worker looks for them first");
            delivering.abort();
        }
    }

    /// Writes what was gathered off the requests' path: last uses and refusals.
    pub async fn flush(&self) {
        let _one_at_a_time = self.flushing.lock().await;
        self.last_used.flush(&self.db).await;
        self.refusals.flush(&self.db).await;
    }

    /// Lapses what is due, forgets what is old and closes what has ended.
    pub async fn sweep(&self) {
        self.sweep_due().await;
        self.close_ended().await;
    }

    /// Lapses what is due and forgets what is old, in transactions small enough to let others in between.
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

    /// Closes the rows of all endings, step by step.
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

    /// Ends what runs beside the requests, writes what was gathered and closes the database.
    pub async fn shutdown(&self) {
        self.finish_deliveries().await;
        {
            // A flush under way has taken what it has not written yet.
            let _none_under_way = self.flushing.lock().await;
            for task in self.tasks.lock().drain(..) {
                task.abort();
            }
        }
        self.flush().await;
        let db = self.db.clone();
        let closed = tokio::task::spawn_blocking(move || db.close()).await;
        if closed.is_err() {
            tracing::error!("the database did not close cleanly");
        }
    }
}

/// Says that a task beside the requests failed.
fn failed(task: &str, error: &ApiError) {
    let cause = error.cause().map(ToString::to_string);
    tracing::error!(code = error.code(), cause, "{task} failed; it will be tried again");
}

/// Does up to a batch of each kind of what time brings. Returns how much of the most numerous kind was due.
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

/// Opens the database of these settings for looking at it. Blocking.
pub(crate) fn open_to_read(config: &Config) -> Result<Db, ward_db::Error> {
    Db::open(&config.database, Options { create: false, read_only: true, ..options(config) })
}

/// The keys that the settings name. Makes no file.
fn vault_of(config: &Config) -> Result<Vault, OpenError> {
    let former = config::load_former_keys(config)?;
    let former = former.iter().map(|key| &**key);
    Ok(Vault::with_former(&*config::load_master_key(&config.master_key)?, former)?)
}

/// The same, without a key in force where its file is not there or the settings name none.
pub fn keys_at_hand(config: &Config) -> Result<Vault, OpenError> {
    let former = config::load_former_keys(config)?;
    let former = former.iter().map(|key| &**key);
    Ok(match config::find_master_key(&config.master_key)? {
        Some(key) => Vault::with_former(&key, former)?,
        None => Vault::without_key(former)?,
    })
}

/// Runs work that blocks off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

/// How the database is opened. A request's closures end with the request, by its `Deadline`; what runs beside requests has
/// no less than usual, and more where requests have.
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

/// The engine's long readers, half of them for one workspace.
fn long_reads(db: &Db) -> Shares {
    let total = u32::try_from(db.long_readers()).unwrap_or(u32::MAX);
    Shares::new("long_reads", shares::Limits { total, each: total / 2, waiting_each: LONG_READS_WAITING })
}

/// When each key last let somebody in, since the last flush.
#[derive(Default)]
pub struct LastUsed {
    gathered: Mutex<HashMap<KeyId, Timestamp>>,
}

impl LastUsed {
    /// Notes a use.
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

    /// Writes what was gathered. What cannot be written is gathered again.
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
                tracing::error!(%error, keys = batch.len(), "last uses could not be written; they are kept for the next try");
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
