//! The engine alone: tasks of this process read and write rows like those of Ward, through `ward-db`.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use ward_db::{Db, Error, Migration, Options, Timestamp, Uuid, Value};

use crate::Failure;
use crate::load::RunTotals;
use crate::process;
use crate::workload::Case;

/// A task yields after this many reads. A read on SQLite never waits, so the task would otherwise keep its thread.
const TURN: u64 = 64;
/// The number of workspaces of the reading user, which a list returns.
const LISTED: u128 = 20;
/// The timestamp of every row: a time in 2026, in microseconds since 1970.
const NOW: Timestamp = Timestamp::from_micros(1_775_000_000_000_000);
/// SHA-256 of a key's secret is 32 bytes.
const HASH: [u8; 32] = [7; 32];

/// The tables of this program. They have the keys and indexes that a request to Ward uses.
const TABLES: Migration = Migration {
    name: "0001_engine_alone",
    sql: "-- oldest binary: 0.1.0
CREATE TABLE raw_workspaces (
    id uuid NOT NULL PRIMARY KEY, slug text NOT NULL, name text NOT NULL, environment text NOT NULL,
    region text NOT NULL, state text NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL
);
-- step
CREATE TABLE raw_slugs (slug text NOT NULL PRIMARY KEY, workspace_id uuid NOT NULL);
-- step
CREATE TABLE raw_unclaimed (workspace_id uuid NOT NULL PRIMARY KEY, lapses_at timestamptz NOT NULL);
-- step
CREATE INDEX raw_unclaimed_by_lapse ON raw_unclaimed (lapses_at);
-- step
CREATE TABLE raw_memberships (
    workspace_id uuid NOT NULL, principal_id uuid NOT NULL, role text NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (workspace_id, principal_id)
);
-- step
CREATE UNIQUE INDEX raw_memberships_by_principal ON raw_memberships (principal_id, position);
-- step
CREATE TABLE raw_keys (
    key_id text NOT NULL PRIMARY KEY, workspace_id uuid NOT NULL, principal_id uuid NOT NULL, role text NOT NULL,
    secret_hash bytea NOT NULL, expires_at timestamptz NOT NULL, revoked_at timestamptz
);
-- step
CREATE TABLE raw_events (
    workspace_id uuid NOT NULL, at timestamptz NOT NULL, id uuid NOT NULL, action text NOT NULL, details text NOT NULL,
    PRIMARY KEY (workspace_id, at, id)
);
",
};

const ADMIT: &str = "SELECT k.role, k.secret_hash, k.expires_at, k.revoked_at IS NOT NULL, m.role, w.id, w.slug, w.name, \
                     w.environment, w.region, w.created_at, w.updated_at \
                     FROM raw_keys k JOIN raw_workspaces h ON h.id = k.workspace_id \
                     LEFT JOIN raw_memberships m ON m.workspace_id = $2 AND m.principal_id = k.principal_id \
                     LEFT JOIN raw_workspaces w ON w.id = m.workspace_id AND w.state = 'active' \
                     WHERE k.key_id = $1";
const LIST: &str = "SELECT m.position, w.id, w.slug, w.name, w.environment, w.region, w.created_at, w.updated_at \
                    FROM raw_memberships m JOIN raw_workspaces w ON w.id = m.workspace_id \
                    WHERE m.principal_id = $1 AND m.position > $2 AND w.state = 'active' ORDER BY m.position LIMIT 21";

/// An open database with the rows for the reading cases.
pub struct Raw {
    runtime: Runtime,
    work: Arc<Work>,
}

struct Work {
    db: Db,
    workspace: Uuid,
    principal: Uuid,
    created: AtomicU64,
}

/// Keys of the reading user, the second one revoked.
const KEYS: [&str; 2] = ["2umvizits1B8FglJcs5AFV", "2umvizits1B8FglJcs5AFW"];

impl Raw {
    /// Creates the tables in an empty database and fills them.
    pub fn open(url: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let db = Db::open(url, Options { serve_lock: true, ..Options::default() })?;
        db.migrate(&[TABLES], "0.1.0")?;
        let (workspace, principal) = (Uuid::from_u128(1), Uuid::from_u128(1 << 64));
        runtime.block_on(db.write("bench.fill", move |tx| {
            for number in 0..LISTED {
                let id = Uuid::from_u128(workspace.as_u128() + number);
                let slug = format!("corner-clinic-{number}");
                tx.execute(
                    "INSERT INTO raw_workspaces VALUES ($1, $2, 'The Corner Clinic', 'production', 'us-east-1', \
                     'active', $3, $3)",
                    &[id.into(), slug.as_str().into(), NOW.into()],
                )?;
                tx.execute(
                    "INSERT INTO raw_memberships VALUES ($1, $2, 'owner', $3)",
                    &[id.into(), principal.into(), i64::try_from(number + 1).unwrap_or(i64::MAX).into()],
                )?;
            }
            for (key, revoked_at) in KEYS.into_iter().zip([Value::Null, NOW.into()]) {
                tx.execute(
                    "INSERT INTO raw_keys VALUES ($1, $2, $3, 'owner', $4, $5, $6)",
                    &[key.into(), workspace.into(), principal.into(), Value::Bytes(&HASH), NOW.into(), revoked_at],
                )?;
            }
            Ok::<_, Error>(())
        }))?;
        let work = Work { db, workspace, principal, created: AtomicU64::new(0) };
        Ok(Self { runtime, work: Arc::new(work) })
    }

    /// Measures the highest rate of this many tasks, and the CPU time of this process meanwhile.
    pub fn peak(&self, case: Case, tasks: usize, time: Duration) -> Result<(RunTotals, Duration), Failure> {
        let work = &self.work;
        self.runtime.block_on(async {
            let before = process::own_cpu()?;
            let started = Instant::now();
            let mut running = JoinSet::new();
            for _ in 0..tasks {
                let work = work.clone();
                running.spawn(async move {
                    let mut done = 0;
                    while started.elapsed() < time {
                        work.once(case).await?;
                        done += u64::from(started.elapsed() < time);
                        if done % TURN == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    Ok::<u64, Failure>(done)
                });
            }
            let mut requests = 0;
            while let Some(done) = running.join_next().await {
                requests += done??;
            }
            let used = process::own_cpu()?.saturating_sub(before);
            Ok((RunTotals { requests, time }, used))
        })
    }
}

impl Work {
    /// Runs the closures of one request of this case.
    async fn once(&self, case: Case) -> Result<(), Failure> {
        match case {
            Case::Get => self.admit(KEYS[0]).await,
            Case::Refused => self.admit(KEYS[1]).await,
            Case::List => {
                self.admit(KEYS[0]).await?;
                let principal = self.principal;
                let listed = self.db.read("bench.list", move |tx| {
                    tx.all(LIST, &[principal.into(), 0.into()], |row| Ok::<_, Error>(row.text(3)?.len()))
                });
                if black_box(listed.await?).is_empty() { Err("the list is empty".into()) } else { Ok(()) }
            }
            Case::Bootstrap => self.create().await,
            Case::Own | Case::Patch | Case::Rotate | Case::Authorize | Case::Mix => {
                Err("the engine alone does not have this case".into())
            }
        }
    }

    /// Reads a key, its membership and the workspace with one query.
    async fn admit(&self, key: &'static str) -> Result<(), Failure> {
        let workspace = self.workspace;
        let found = self.db.read("bench.admit", move |tx| {
            tx.optional(ADMIT, &[key.into(), workspace.into()], |row| Ok::<_, Error>(row.text(0)?.len()))
        });
        black_box(found.await?).ok_or("the key was not found")?;
        Ok(())
    }

    /// Writes the four rows of an open creation in one transaction.
    async fn create(&self) -> Result<(), Failure> {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        let created = self.db.write("bench.create", move |tx| {
            // The ids start with the time, so that new rows are adjacent, as in Ward.
            let (id, event) = (Uuid::now_v7(), Uuid::now_v7());
            let slug = format!("raw-{number:010}");
            let taken = tx.execute(
                "INSERT INTO raw_slugs VALUES ($1, $2) ON CONFLICT (slug) DO NOTHING",
                &[slug.as_str().into(), id.into()],
            )?;
            tx.execute_later(
                "INSERT INTO raw_workspaces VALUES ($1, $2, 'The Corner Clinic', 'production', 'us-east-1', \
                 'unclaimed', $3, $3)",
                &[id.into(), slug.as_str().into(), NOW.into()],
            )?;
            tx.execute_later("INSERT INTO raw_unclaimed VALUES ($1, $2)", &[id.into(), NOW.into()])?;
            tx.execute_later(
                "INSERT INTO raw_events VALUES ($1, $2, $3, 'workspace.create', $4)",
                &[id.into(), NOW.into(), event.into(), slug.as_str().into()],
            )?;
            Ok::<_, Error>(taken)
        });
        if created.await? == 1 { Ok(()) } else { Err("the slug is already taken".into()) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.work.db.close();
    }
}
