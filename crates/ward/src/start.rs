//! The life of a Ward process: it opens, migrates, runs its background tasks, and shuts down.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use ward_db::{CopiedTable, CopyProgress, Db, Options, Timestamp, Tx};

use crate::api_keys::{LastUsed, MalformedProofs, handover, warnings};
use crate::app::{App, CommandAccess, OpenError, keys_at_hand, vault_of};
use crate::audit::exports::objects::ExportStore;
use crate::audit::exports::worker as exporter;
use crate::audit::refusals::Refusals;
use crate::clock::Clock;
use crate::config::{self, Config, MasterKey};
use crate::context::Context;
use crate::deliveries::worker::{self, Worker};
use crate::error::ApiError;
use crate::gate::idempotency;
use crate::gate::limits::ClientRates;
use crate::identity::issuers::Issuers;
use crate::identity::proof::RecentProofs;
use crate::integrations::outbound::client::Wire;
use crate::quotas::rate::RequestRates;
use crate::schema::{MIGRATIONS, VERSION, options};
use crate::shares::{self, Shares};
use crate::trust_rules::issuers::WorkloadIssuers;
use crate::twilio::reconciling::worker as reconciler;
use crate::vault::{self, Vault};
use crate::work::Work;
use crate::workspaces::slugs::{self, FormerSlugUses};
use crate::{closing, contract, deliveries, identity, invitations, router, workspaces};

/// Pause between two sweeps of rows that are due to lapse or to be deleted.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Rows that one transaction of the sweep touches.
const SWEEP_BATCH: u32 = 500;
/// How long an invitation is kept after its end: as long as its acceptance may be replayed.
const INVITATIONS_KEPT: Duration = Duration::from_hours(24);
/// Long reads of one workspace that may wait for a reader.
const LONG_READS_WAITING: usize = 32;

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
    pub fn open_beside(config: Config, access: CommandAccess) -> Result<Arc<Self>, OpenError> {
        let read_only = access == CommandAccess::Read;
        let serve_lock = access == CommandAccess::Alone;
        let how = Options { create: false, read_only, serve_lock, ..options(&config) };
        let db = Db::open(&config.database, how)?;
        let compared = db.compare(MIGRATIONS, VERSION)?;
        if !compared.missing.is_empty() {
            return Err(OpenError::OldSchema(compared.missing));
        }
        let vault = match access {
            CommandAccess::Read | CommandAccess::Write => Vault::without_key([])?,
            CommandAccess::Seal => vault_of(&config)?,
            CommandAccess::Alone => keys_at_hand(&config)?,
        };
        Self::with(config, db, Clock::default(), vault)
    }

    /// A Ward on an open database, which it migrates. Blocking.
    pub fn on(config: Config, db: Db, clock: Clock) -> Result<Arc<Self>, OpenError> {
        db.migrate(MIGRATIONS, VERSION)?;
        let vault = vault_of(&config)?;
        let exports = config.exports.as_ref().map(ExportStore::open).transpose()?;
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
        exports: Option<ExportStore>,
    ) -> Result<Arc<Self>, OpenError> {
        let contract = contract::load_for(router::RULES, &config.platform)?.under(config.path_prefix())?;
        let vault = Arc::new(vault);
        let wire = Wire::new(&config, &vault)?;
        let long_reads = long_reads(&db);
        let app = Arc::new(Self {
            rates: ClientRates::new(&config.rates),
            issuers: Arc::new(Issuers::new(&config.issuers, &clock)?),
            workload_issuers: WorkloadIssuers::new(&clock),
            config,
            db,
            clock,
            contract,
            vault,
            wire,
            work: Work::default(),
            long_reads,
            bodies: Shares::new("request_bodies", crate::http::MEMORY),
            #[cfg(feature = "watch")]
            watch: crate::http::watch::Watch::default(),
            refusals: Refusals::default(),
            last_used: LastUsed::default(),
            former_slugs_used: FormerSlugUses::default(),
            recent_proofs: RecentProofs::default(),
            malformed_proofs: MalformedProofs::default(),
            listening: OnceLock::new(),
            sync: deliveries::Wake::default(),
            request_rates: RequestRates::default(),
            forbidden_rates: RequestRates::default(),
            ended: Notify::new(),
            exports,
            export_shares: exporter::shares(),
            export_wake: deliveries::Wake::default(),
            reconcile_shares: reconciler::shares(),
            reconcile_wake: deliveries::Wake::default(),
            tasks: Mutex::new(Vec::new()),
            flushing: tokio::sync::Mutex::default(),
            delivering: Mutex::new(None),
        });
        Ok(app)
    }

    /// Migrates a database, and returns the applied steps.
    pub fn migrate(config: &Config) -> Result<ward_db::MigrationReport, OpenError> {
        let db = Db::open(&config.database, options(config))?;
        let migrated = db.migrate(MIGRATIONS, VERSION)?;
        db.close();
        Ok(migrated)
    }

    /// Copies an installation from a file without a running server into an empty database on a server.
    pub async fn copy(
        from: &str,
        to: &str,
        progress: impl FnMut(CopyProgress<'_>),
    ) -> Result<Vec<CopiedTable>, OpenError> {
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

    /// Starts the tasks that run beside requests.
    pub fn start_background(self: &Arc<Self>) {
        let flushing = self.clone();
        let sweeping = self.clone();
        let closing = self.clone();
        let issuers = self.issuers.clone();
        let exporting = self.clone();
        let reconciling = self.clone();
        self.tasks.lock().extend([
            tokio::spawn(async move { issuers.warm().await }),
            tokio::spawn(exporter::keep_going(exporting)),
            tokio::spawn(reconciler::keep_going(reconciling)),
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(flushing.config.flush_interval).await;
                    flushing.flush().await;
                }
            }),
            tokio::spawn(async move {
                loop {
                    sweeping.sweep_due().await;
                    sweeping.warn_of_expiry().await;
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
        self.malformed_proofs.flush(&self.db, &self.refusals).await;
        self.former_slugs_used.flush(&self.db).await;
        self.refusals.flush(&self.db).await;
    }

    /// Lapses due workspaces, deletes old rows, warns about expiring keys and closes the rows of endings.
    pub async fn sweep(&self) {
        self.sweep_due().await;
        self.warn_of_expiry().await;
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

    /// Records the warnings that are due for keys before they expire, in steps.
    async fn warn_of_expiry(&self) {
        loop {
            let now = self.clock.now();
            match self.db.write("app.warn_of_expiry", move |tx| warnings::warn_some(tx, now)).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return failed("the warnings before keys expire", &error),
            }
        }
        let now = self.clock.now();
        if let Err(error) = self.db.read("app.measure_expiry", move |tx| warnings::measure(tx, now)).await {
            failed("the count of expiring keys", &error.into());
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
    let handovers = handover::forget_old(tx, now, SWEEP_BATCH)?;
    let invitations = invitations::forget_old(tx, now.saturating_sub(INVITATIONS_KEPT), SWEEP_BATCH)?;
    let proofs = identity::forget_proofs(tx, now, SWEEP_BATCH)?;
    let slugs = slugs::forget_due(tx, now, SWEEP_BATCH)?;
    closing::measure(tx, now)?;
    let rows = [lapsed.len(), answers, invitations, expired, handovers, proofs, slugs];
    Ok(rows.into_iter().max().unwrap_or(0))
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

/// The engine's long readers. One workspace may use half of them, but always leaves one processor to all others.
fn long_reads(db: &Db) -> Shares {
    let total = u32::try_from(db.long_readers()).unwrap_or(u32::MAX);
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let all_but_one = u32::try_from(cores - 1).unwrap_or(u32::MAX);
    Shares::new(
        "long_reads",
        shares::Limits {
            total,
            each: all_but_one.min(total / 2).max(1),
            first: total,
            beyond: total,
            waiting_each: LONG_READS_WAITING,
        },
    )
}
