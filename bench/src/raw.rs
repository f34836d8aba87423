//! The engine alone: what Ward's routes do in the database, done by tasks of this process.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use ward::api_keys;
use ward::api_keys::secret::{KeyId, Presented};
use ward::app::App;
use ward::clock::Clock;
use ward::config::{Config, MasterKey};
use ward::error::ApiError;
use ward::http::Context;
use ward::http::idempotency::Repeat;
use ward::ids::{PrincipalId, WorkspaceId};
use ward::page::{Page, TOTAL_LIMIT};
use ward::workspaces::{self, actions};
use ward_db::{Db, Options, Uuid};

use crate::Failure;
use crate::load::Done;
use crate::process;
use crate::seed::Seeded;
use crate::workload::Case;

/// After how many reads a task lets others go on. On SQLite a read waits for nothing, so nothing else makes it.
const TURN: u64 = 64;

/// An open database that a Ward was seeded in, and what the statements are about.
pub struct Raw {
    runtime: Runtime,
    work: Arc<Work>,
}

struct Work {
    app: Arc<App>,
    key: KeyId,
    revoked: KeyId,
    workspace: WorkspaceId,
    principal: PrincipalId,
    created: AtomicU64,
}

impl Raw {
    /// Opens the database as `ward serve` would.
    pub fn open(url: &str, seeded: &Seeded) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let config = Config {
            database: url.to_owned(),
            // Nothing here is sealed.
            master_key: MasterKey::Given([7; 32].into()),
            unclaimed_limit: 10_000_000,
            ..Config::default()
        };
        let db = Db::open(url, Options { serve_lock: true, ..Options::default() })?;
        let key_id = |bearer: &str| Presented::parse(bearer.as_bytes()).map(|presented| presented.key_id);
        let (key, revoked) = (key_id(&seeded.key), key_id(&seeded.revoked));
        let (Some(key), Some(revoked)) = (key, revoked) else { return Err("a key that is none".into()) };
        let workspace = WorkspaceId(Uuid::parse_str(&seeded.workspace)?);
        let looked = db.read("bench.key", move |tx| api_keys::look_up(tx, key));
        let principal = runtime.block_on(looked)?.ok_or("a key that is not there")?.principal;
        let app = App::on(config, db, Clock::default())?;
        let work = Work { app, key, revoked, workspace, principal, created: AtomicU64::new(0) };
        Ok(Self { runtime, work: Arc::new(work) })
    }

    /// As much as so many tasks get done; and the CPU time of this process meanwhile.
    pub fn peak(&self, case: Case, tasks: usize, time: Duration) -> Result<(Done, Duration), Failure> {
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
            Ok((Done { requests, time }, used))
        })
    }
}

impl Work {
    /// The closures that one request of this case runs.
    async fn once(&self, case: Case) -> Result<(), Failure> {
        let Self { app, key, revoked, workspace, principal, .. } = self;
        let (key, revoked, workspace, principal) = (*key, *revoked, *workspace, *principal);
        match case {
            Case::Get => {
                let found =
                    app.db.read("gate.admit", move |tx| api_keys::look_up_for(tx, key, workspace)).await?;
                let (key, seen) = found.ok_or("no key")?;
                black_box(key);
                black_box(seen).ok_or("no workspace")?;
            }
            Case::List => {
                let found = app.db.read("gate.admit", move |tx| api_keys::look_up(tx, key));
                black_box(found.await?).ok_or("no key")?;
                let listed = app.db.read("workspaces.list", move |tx| {
                    workspaces::list(tx, principal, Page { after: 0, limit: 20 }, TOTAL_LIMIT + 1)
                });
                black_box(listed.await?);
            }
            Case::Refused => {
                let found = app
                    .db
                    .read("gate.admit", move |tx| api_keys::look_up_for(tx, revoked, workspace))
                    .await?;
                if !black_box(found).ok_or("no key")?.0.revoked {
                    return Err("a key that is good".into());
                }
            }
            Case::Bootstrap => self.create().await?,
            Case::Own | Case::Patch | Case::Rotate | Case::Mix => {
                return Err("the engine alone has no such case".into());
            }
        }
        Ok(())
    }

    /// The write of the bootstrap call, as the route does it.
    async fn create(&self) -> Result<(), Failure> {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        let new = json!({
            "slug": format!("raw-{number:010}"), "name": "The Corner Clinic", "environment": "production",
            "region": "us-east-1", "backend_org_id": null,
        });
        let now = self.app.clock.now();
        let repeat = Repeat::without_key(StatusCode::CREATED, now);
        let context = Arc::new(Context::of_time(now));
        let created = actions::bootstrap(&self.app, context, serde_json::from_value(new)?, repeat).await;
        let reply = created.map_err(|error: ApiError| format!("not created: {}", error.code()))?;
        black_box(reply);
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.work.app.db.close();
    }
}
