//! Workers: they take a lane, commit, talk to the EHR, and settle.
//!
//! Nothing is sent inside a transaction, and nothing is sent that is not marked as being sent first. A worker that dies
//! therefore leaves a mark, and whoever comes after it looks into the EHR before sending again. Lanes are served beside
//! each other: one whose EHR hangs holds up no other. A worker that is told to stop begins nothing and finishes what is
//! under way.

mod tried;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use ward_db::{Timestamp, Uuid};
use ward_ehr::delivery::{CallNote, Form, Target, Verdict};
use ward_ehr::{Outbound, Tokens};

use super::outbox::{self, Attempt, Lane, LaneKey, Leased, Leaving, Settled};
use super::{backoff, note, store};
use crate::app::App;
use crate::calls::{self, CallRecord};
use crate::integrations::{self, Connection};
use crate::workspaces;
use tried::Tried;

/// How long a lane that waits for somebody is let alone. Whoever changes what it waits for wakes it; this is for what is
/// changed past Ward.
const RECHECK: Duration = Duration::from_mins(30);
/// The least that a lane is let alone whose tries could not be settled.
const UNSETTLED: Duration = Duration::from_secs(5);
/// How often the queue's depth and age are measured.
const MEASURED: Duration = Duration::from_secs(15);
/// The depth is counted no further than this.
const MOST_COUNTED: i64 = 100_000;

/// Why a delivery into a chart is held while nobody has said whose.
const UNMATCHED: &str = "unmatched_patient";

/// How a worker works.
#[derive(Clone)]
pub struct Options {
    /// How long it sleeps when nothing is due and nobody wakes it.
    pub poll: Duration,
    /// How many lanes it serves at once; each takes a share of file descriptors, so this is a bound.
    pub lanes: usize,
    /// How many deliveries of one lane it takes at once.
    pub batch: i64,
    /// How many deliveries of one integration it sends at once.
    pub concurrency: usize,
    /// For tests: called at each step, where a process may die.
    #[doc(hidden)]
    pub on_step: Option<Arc<dyn Fn(Step) + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { poll: Duration::from_secs(1), lanes: 32, batch: 32, concurrency: 4, on_step: None }
    }
}

/// Where a worker may die.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Marked as being sent, and nothing sent.
    Leased,
    /// The EHR has answered, and nothing of that is written.
    Sent,
    /// Settled, and the lane still taken.
    Settled,
}

/// A worker. Any number of them, in any number of processes, share one database.
pub struct Worker {
    app: Arc<App>,
    /// Where it is not the server's own.
    client: Option<(Outbound, Tokens)>,
    options: Options,
}

/// A lane with what is to be sent.
struct Taken {
    lane: Lane,
    connection: Connection,
    work: Vec<(Leased, Option<CallRecord>)>,
}

/// How a lane's deliveries went so far.
#[derive(Default)]
struct Progress {
    failures: i64,
    after: Option<Duration>,
    hold: Option<&'static str>,
    succeeded_at: Option<Timestamp>,
    settled: usize,
    /// How a try ended could not be written.
    unsettled: bool,
}

impl Worker {
    /// A worker that sends with this client.
    pub fn new(app: Arc<App>, outbound: Outbound, tokens: Tokens, options: Options) -> Self {
        Self { app, client: Some((outbound, tokens)), options }
    }

    /// A worker that sends with the server's own client.
    pub fn of(app: &Arc<App>) -> Self {
        Self { app: app.clone(), client: None, options: Options::default() }
    }

    fn outbound(&self) -> &Outbound {
        self.client.as_ref().map_or_else(|| self.app.wire.outbound(), |(outbound, _)| outbound)
    }

    fn tokens(&self) -> &Tokens {
        self.client.as_ref().map_or_else(|| self.app.wire.tokens(), |(_, tokens)| tokens)
    }

    /// Works until it is told to stop, and then until what it has begun is finished.
    pub async fn run(self: Arc<Self>) {
        let mut measured: Option<Instant> = None;
        let mut serving: JoinSet<usize> = JoinSet::new();
        let mut served: HashMap<Id, LaneKey> = HashMap::new();
        while self.app.sync.stopped_at().is_none() {
            let free = self.options.lanes.max(1) - serving.len();
            if free > 0 {
                let due = self.due(free + served.len()).await.unwrap_or_default();
                let fresh = |key: &LaneKey| !served.values().any(|served| served == key);
                let due: Vec<LaneKey> = due.into_iter().filter(fresh).take(free).collect();
                for key in due {
                    let worker = self.clone();
                    let lane = serving.spawn(async move { worker.serve(key).await });
                    served.insert(lane.id(), key);
                }
            }
            if measured.is_none_or(|last| last.elapsed() >= MEASURED) {
                measured = Some(Instant::now());
                self.measure().await;
            }
            // Spread out, so that replicas do not look all at once.
            let jitter = Duration::from_millis(backoff::random(self.app.clock.now()) % 250);
            tokio::select! {
                Some(ended) = serving.join_next_with_id() => note_end(ended, &mut served),
                () = self.app.sync.wait(self.options.poll + jitter) => {}
            }
        }
        while let Some(ended) = serving.join_next_with_id().await {
            note_end(ended, &mut served);
        }
    }

    /// One look to its end, by which tests and measurements go: serves every lane that is due, each once, and says how
    /// many deliveries were settled.
    pub async fn turn(&self) -> usize {
        let lanes = self.options.lanes.max(1);
        let due = self.due(2 * lanes).await.unwrap_or_default();
        stream::iter(due)
            .map(|key| self.serve(key))
            .buffer_unordered(lanes)
            .fold(0, async |sum, done| sum + done)
            .await
    }

    /// Lanes whose turn it is. `None`: the database could not say.
    async fn due(&self, most: usize) -> Option<Vec<LaneKey>> {
        let (now, most) = (self.app.clock.now(), u32::try_from(most).unwrap_or(u32::MAX));
        match self.app.db.read("sync.due", move |tx| outbox::due_lanes(tx, now, most)).await {
            Ok(due) => Some(due),
            Err(error) => {
                let error: ward_db::Error = error;
                tracing::error!(%error, "deliveries cannot be looked for; it will be tried again");
                None
            }
        }
    }

    fn step(&self, step: Step) {
        if let Some(on_step) = &self.options.on_step {
            on_step(step);
        }
    }

    /// A lane's lease: several times longer than all that can happen within it.
    fn lease_time(&self) -> Duration {
        self.outbound().limits().total_time * 6
    }

    async fn serve(&self, key: LaneKey) -> usize {
        match self.take(key).await {
            Ok(Some(taken)) => self.deliver(taken).await,
            Ok(None) => 0,
            Err(error) => {
                tracing::error!(%error, "a lane cannot be taken; it will be tried again");
                // Its place is kept meanwhile, or it would be tried again at once, for ever.
                tokio::time::sleep(self.options.poll).await;
                0
            }
        }
    }

    /// Takes the lane and marks what is due of it, in one transaction. `None`: there is nothing to do.
    async fn take(&self, key: LaneKey) -> Result<Option<Taken>, ward_db::Error> {
        let (now, lease_time, batch) = (self.app.clock.now(), self.lease_time(), self.options.batch);
        let (token, vault) = (Uuid::new_v4(), self.app.vault.clone());
        self.app
            .db
            .write("sync.take", move |tx| {
                let until = now.saturating_add(lease_time);
                let Some(mut lane) = outbox::take_lane(tx, key, token, now, until)? else { return Ok(None) };
                let active = workspaces::active(tx, key.0)?.is_some();
                let connection = integrations::connection(tx, &vault, key.0, key.1)?;
                if lane.held
                    && let Some(connection) = &connection
                {
                    outbox::resume_after(tx, &mut lane, connection.updated_at, now)?;
                }
                let waits = match &connection {
                    _ if !active => Some("workspace_archived"),
                    None => Some("integration_gone"),
                    Some(_) if lane.held => Some("held"),
                    Some(connection) if !connection.enabled => Some("integration_disabled"),
                    Some(connection) if connection.base_url.is_empty() => Some("integration_unconfigured"),
                    Some(_) => None,
                };
                let (Some(connection), None) = (connection, waits) else {
                    let not_before = now.saturating_add(RECHECK);
                    let failures = lane.failures;
                    outbox::leave_lane(
                        tx,
                        &lane,
                        Leaving { failures, not_before, waits_because: waits, succeeded_at: None },
                    )?;
                    return Ok(None);
                };
                outbox::go_on(tx, &mut lane, now)?;
                // After many failures in a row one delivery goes ahead to see.
                let most = if lane.failures >= backoff::BREAKS_AFTER { 1 } else { batch };
                let mut work = Vec::new();
                for leased in outbox::lease(tx, &lane, now, most)? {
                    let call = calls::by_id(tx, key.0, leased.call)?;
                    work.push((leased, call));
                }
                if work.is_empty() {
                    let failures = lane.failures;
                    outbox::leave_lane(
                        tx,
                        &lane,
                        Leaving { failures, not_before: now, waits_because: None, succeeded_at: None },
                    )?;
                    return Ok(None);
                }
                Ok(Some(Taken { lane, connection, work }))
            })
            .await
    }

    async fn deliver(&self, taken: Taken) -> usize {
        self.step(Step::Leased);
        let Taken { lane, connection, work } = taken;
        let progress = Mutex::new(Progress { failures: lane.failures, ..Progress::default() });
        let stop = AtomicBool::new(false);
        // What is not begun by then is left for the next turn, so that the lease outlives everything begun.
        let begin_by = Instant::now() + self.outbound().limits().total_time;
        stream::iter(work)
            .for_each_concurrent(self.options.concurrency.max(1), |(leased, call)| {
                let (lane, connection, progress, stop) = (&lane, &connection, &progress, &stop);
                async move {
                    let begun = !stop.load(Ordering::Relaxed)
                        && Instant::now() < begin_by
                        && self.may_begin(lane, stop).await;
                    let started_at = self.app.clock.now();
                    let tried = if begun {
                        self.attempt(lane, connection, &leased, call.as_ref()).await
                    } else {
                        Tried::not_begun()
                    };
                    if tried.was_sent {
                        self.step(Step::Sent);
                    }
                    self.settle(lane, &leased, tried, started_at, progress, stop).await;
                }
            })
            .await;
        self.step(Step::Settled);
        self.leave(&lane, connection.updated_at, progress.into_inner()).await
    }

    /// Asked before each try: whether this process goes on, the lane is still this worker's, and nobody has held or
    /// disabled anything since it was taken.
    async fn may_begin(&self, lane: &Lane, stop: &AtomicBool) -> bool {
        if self.app.sync.stopped_at().is_some() {
            return false;
        }
        let ours = lane.clone();
        let may = self.app.db.read("sync.may_send", move |tx| outbox::may_send(tx, &ours)).await;
        let may = may.unwrap_or_else(|error: ward_db::Error| {
            tracing::error!(%error, "whether a delivery may go cannot be told; it waits");
            false
        });
        if !may {
            stop.store(true, Ordering::Relaxed);
        }
        may
    }

    /// One try, as far as the EHR.
    async fn attempt(
        &self,
        lane: &Lane,
        connection: &Connection,
        leased: &Leased,
        call: Option<&CallRecord>,
    ) -> Tried {
        // The last wall: whatever the database let through, a call that was not real is not sent.
        let real = call.and_then(|call| call.direction.real().map(|direction| (call, direction)));
        let Some((call, direction)) = real else {
            metrics::counter!("ward_sync_stopped_total").increment(1);
            tracing::error!(delivery = %leased.id, "a delivery of a call that was not real was stopped");
            return Tried::unsent(Settled::Failed("not_a_real_call", leased.maybe_sent), "stopped");
        };
        let Some(form) = note::form_of(&connection.name) else {
            return Tried::unsent(Settled::Held("connector_takes_no_calls", leased.maybe_sent), "held");
        };
        let told = note::of(lane.key.0, call, direction);
        if form.needs_patient() && told.patient.is_none() {
            return Tried::unsent(Settled::Held(UNMATCHED, leased.maybe_sent), "held");
        }
        let verdict = self.send(connection, form, &told, leased.maybe_sent).await;
        Tried::of(leased, verdict, self.app.clock.now())
    }

    async fn send(&self, connection: &Connection, form: Form, told: &CallNote, maybe_sent: bool) -> Verdict {
        let auth = match &connection.auth {
            Ok(auth) => auth.as_ref(),
            Err(why) => return Verdict::Misconfigured { why: why.clone() },
        };
        let target = Target {
            outbound: self.outbound(),
            tokens: self.tokens(),
            auth,
            base_url: &connection.base_url,
            form,
        };
        target.deliver(told, maybe_sent, Instant::now() + self.outbound().limits().total_time).await
    }

    async fn settle(
        &self,
        lane: &Lane,
        leased: &Leased,
        tried: Tried,
        started_at: Timestamp,
        progress: &Mutex<Progress>,
        stop: &AtomicBool,
    ) {
        let ended_at = self.app.clock.now();
        {
            let mut progress = progress.lock();
            if tried.arrived {
                progress.failures = 0;
            } else if tried.failed {
                progress.failures += 1;
            }
            if matches!(tried.settled, Settled::Synced(_)) {
                progress.succeeded_at = Some(ended_at);
            }
            progress.after = progress.after.max(tried.after);
            progress.hold = progress.hold.or(tried.hold);
            if progress.failures >= backoff::BREAKS_AFTER
                || progress.after.is_some()
                || progress.hold.is_some()
            {
                stop.store(true, Ordering::Relaxed);
            }
        }
        let tried_it = !matches!(tried.settled, Settled::Untried);
        if tried_it {
            metrics::counter!("ward_sync_attempts_total", "outcome" => tried.outcome).increment(1);
        }
        if matches!(tried.settled, Settled::Synced(_)) {
            let micros = ended_at.micros() - leased.created_at.micros();
            let waited = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
            metrics::histogram!("ward_sync_delivery_seconds").record(waited);
        }
        let (lane, leased) = (lane.clone(), leased.clone());
        let settled = self
            .app
            .db
            .write("sync.settle", move |tx| {
                let detail = tried.detail.as_ref().map(Value::to_string);
                let attempt = Attempt {
                    outcome: tried.outcome,
                    status: tried.status,
                    started_at,
                    ended_at,
                    detail: detail.as_deref(),
                };
                let settled = outbox::settle(tx, &lane, &leased, &tried.settled, &attempt)?;
                if settled && matches!(tried.settled, Settled::Held(UNMATCHED, _)) {
                    // The patient may have become known while this was under way.
                    let call = calls::by_id(tx, lane.key.0, leased.call)?;
                    if call.is_some_and(|call| call.detail("patient_id").is_some()) {
                        store::release_unmatched(tx, lane.key.0, leased.call, ended_at)?;
                    }
                }
                Ok::<_, ward_db::Error>(settled)
            })
            .await;
        match settled {
            Ok(true) => progress.lock().settled += usize::from(tried_it),
            Ok(false) => {
                tracing::warn!("a try outlived its lease; whoever has the delivery now will look first");
            }
            // The mark stays: when the lease has run out, somebody looks before sending again.
            Err(error) => {
                tracing::error!(%error, "how a try ended could not be written");
                let mut progress = progress.lock();
                (progress.unsettled, progress.failures) = (true, progress.failures + 1);
                stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Gives the lane back. What was learned of an integration that was changed meanwhile is not held against it.
    async fn leave(&self, lane: &Lane, seen: Timestamp, progress: Progress) -> usize {
        let now = self.app.clock.now();
        let broken = progress.failures >= backoff::BREAKS_AFTER;
        let pause = if broken {
            let beyond = progress.failures - backoff::BREAKS_AFTER;
            Some(backoff::wait(beyond + 1, progress.after, backoff::random(now)))
        } else {
            progress.after
        };
        let pause = if progress.unsettled { Some(pause.unwrap_or_default().max(UNSETTLED)) } else { pause };
        let leaving = Leaving {
            failures: progress.failures,
            not_before: pause.map_or(now, |pause| now.saturating_add(pause)),
            waits_because: pause.map(|_| if broken || progress.unsettled { "failing" } else { "throttled" }),
            succeeded_at: progress.succeeded_at,
        };
        let lane = lane.clone();
        let left = self
            .app
            .db
            .write("sync.leave", move |tx| {
                outbox::guard_lane(tx, lane.key)?;
                let changed = integrations::changed_at(tx, lane.key.0, lane.key.1)? != Some(seen);
                if changed {
                    let anew = Leaving { failures: 0, not_before: now, waits_because: None, ..leaving };
                    return outbox::leave_lane(tx, &lane, anew);
                }
                if let Some(because) = progress.hold {
                    store::hold(tx, lane.key, because, now)?;
                }
                outbox::leave_lane(tx, &lane, leaving)
            })
            .await;
        if let Err(error) = left {
            let error: ward_db::Error = error;
            tracing::error!(%error, "a lane could not be given back; it is free when its lease has run out");
        }
        progress.settled
    }

    async fn measure(&self) {
        let depth = self.app.db.read_long("sync.depth", |tx| outbox::depth(tx, MOST_COUNTED)).await;
        let Ok((depth, oldest)): Result<_, ward_db::Error> = depth else { return };
        let age = oldest.map_or(0, |oldest| self.app.clock.now().micros().saturating_sub(oldest.micros()));
        metrics::gauge!("ward_sync_queue_depth").set(f64::from(u32::try_from(depth).unwrap_or(u32::MAX)));
        let age = Duration::from_micros(u64::try_from(age).unwrap_or(0));
        metrics::gauge!("ward_sync_queue_oldest_seconds").set(age.as_secs_f64());
    }
}

fn note_end(ended: Result<(Id, usize), tokio::task::JoinError>, served: &mut HashMap<Id, LaneKey>) {
    match ended {
        Ok((id, _)) => served.remove(&id),
        Err(error) => {
            tracing::error!(%error, "the serving of a lane ended by itself; its lease runs out");
            served.remove(&error.id())
        }
    };
}

/// Keeps a worker going until it is told to stop: one that panics is replaced.
pub async fn keep_going(worker: Arc<Worker>) {
    while worker.app.sync.stopped_at().is_none() {
        let mut running = JoinSet::new();
        running.spawn(worker.clone().run());
        let ended = running.join_next().await;
        if worker.app.sync.stopped_at().is_some() {
            return;
        }
        tracing::error!(?ended, "the delivery worker ended by itself; another takes its place");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
