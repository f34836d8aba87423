//! Delivery workers: they lease an integration queue, commit, talk to the EHR, and settle.
//!
//! Nothing is sent inside a transaction, and every delivery is marked as being sent before it is sent. So a
//! worker that dies leaves a mark, and the next worker searches the EHR before it sends again. Queues are
//! served in parallel, so an EHR that hangs delays no other queue. A worker that is told to stop begins
//! nothing new and finishes its running work.

mod completing;
mod slots;
mod taking;
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
use ward_db::Timestamp;
use ward_ehr::delivery::{CallNote, Form, Target, Verdict};
use ward_ehr::{Outbound, Tokens};

use super::outbox::{self, Attempt, Due, Lane, LaneKey, Leased, Leaving, Settled};
use super::{Missing, backoff, note, store};
use crate::app::App;
use crate::calls::{self, CallRecord};
use crate::integrations::{self, Connection};
use crate::shares::Holder;
use completing::Stopped;
use slots::{SLOW, Slot, Slots};
use taking::Taken;
use tried::Tried;

/// Due queues that one query returns.
const LOOKED_AT: u32 = 512;
/// If more of them than this wait for a slot of their kind, the later ones are postponed, so that the next
/// query sees others.
const MOST_WAITING: usize = 256;
/// The shortest time for which a queue is postponed. A random time of up to the same length is added.
const PUT_OFF: Duration = Duration::from_secs(30);
/// The shortest pause of a queue after an attempt that could not be settled.
const UNSETTLED: Duration = Duration::from_secs(5);
/// Pause between measurements of the queue's depth and age.
const MEASURED: Duration = Duration::from_secs(15);
/// The measured depth ends at this number.
const MOST_COUNTED: i64 = 100_000;

/// The settings of a worker.
#[derive(Clone)]
pub struct Options {
    /// The pause between polls when nothing is due and no signal arrives.
    pub poll: Duration,
    /// Queues that it serves at once. Each has up to `concurrency` connections, so this bounds file
    /// descriptors.
    pub lanes: usize,
    /// Deliveries of one queue that it leases at once.
    pub batch: i64,
    /// Deliveries of one integration that it sends at once.
    pub concurrency: usize,
    /// For tests: called at each step at which a process may die.
    #[doc(hidden)]
    pub on_step: Option<Arc<dyn Fn(Step) + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { poll: Duration::from_secs(1), lanes: 256, batch: 32, concurrency: 4, on_step: None }
    }
}

/// A step at which a process may die.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Deliveries are marked as being sent, but nothing was sent.
    Leased,
    /// The EHR has answered, but the answer is not stored.
    Sent,
    /// The deliveries are settled, but the queue is still leased.
    Settled,
}

/// A delivery worker. Any number of workers, in any number of processes, share one database.
pub struct Worker {
    app: Arc<App>,
    /// The client, if it is not the server's own.
    client: Option<(Outbound, Tokens)>,
    options: Options,
    places: Slots,
}

/// The result so far of one turn of a queue.
#[derive(Default)]
struct Round {
    failures: i64,
    after: Option<Duration>,
    hold: Option<&'static str>,
    succeeded_at: Option<Timestamp>,
    settled: usize,
    /// Whether the outcome of an attempt could not be stored.
    unsettled: bool,
    /// The leased deliveries that were not begun. They return with the end of the lease, in one transaction: a
    /// slow EHR leaves most of a batch, and single transactions would be a burst.
    untried: Vec<Leased>,
}

impl Worker {
    /// A worker that sends with this client.
    pub fn new(app: Arc<App>, outbound: Outbound, tokens: Tokens, options: Options) -> Self {
        Self { app, client: Some((outbound, tokens)), places: Slots::new(options.lanes), options }
    }

    /// A worker that sends with the server's own client.
    pub fn of(app: &Arc<App>) -> Self {
        let options = Options { lanes: app.config.outbound.lanes, ..Options::default() };
        Self { app: app.clone(), client: None, places: Slots::new(options.lanes), options }
    }

    fn outbound(&self) -> &Outbound {
        self.client.as_ref().map_or_else(|| self.app.wire.outbound(), |(outbound, _)| outbound)
    }

    fn tokens(&self) -> &Tokens {
        self.client.as_ref().map_or_else(|| self.app.wire.tokens(), |(_, tokens)| tokens)
    }

    /// Runs until it is told to stop, and then until its running work is finished.
    pub async fn run(self: Arc<Self>) {
        let mut measured: Option<Instant> = None;
        let mut serving: JoinSet<usize> = JoinSet::new();
        let mut served: HashMap<Id, LaneKey> = HashMap::new();
        while self.app.sync.stopped_at().is_none() {
            if self.places.are_free() {
                self.begin(&mut serving, &mut served).await;
            }
            if measured.is_none_or(|last| last.elapsed() >= MEASURED) {
                measured = Some(Instant::now());
                self.measure().await;
            }
            // The jitter keeps replicas from polling at the same time.
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

    /// Begins to serve the due queues, as far as slots are free.
    async fn begin(self: &Arc<Self>, serving: &mut JoinSet<usize>, served: &mut HashMap<Id, LaneKey>) {
        let due = self.due().await;
        let now = self.app.clock.now();
        let mut waiting = Vec::new();
        for lane in due {
            if served.values().any(|served| *served == lane.key) {
                continue;
            }
            let Ok(place) = self.places.take(&lane, now) else {
                waiting.push(lane.key);
                continue;
            };
            let worker = self.clone();
            let task = serving.spawn(async move { worker.serve(lane.key, &place).await });
            served.insert(task.id(), lane.key);
        }
        if waiting.len() > MOST_WAITING {
            self.put_off(waiting.split_off(MOST_WAITING / 2)).await;
        }
    }

    async fn put_off(&self, mut lanes: Vec<LaneKey>) {
        let now = self.app.clock.now();
        let longer = Duration::from_micros(backoff::random(now) % 1_000_000) * 30;
        // Every replica locks the rows in the same order, so that no two wait for each other.
        lanes.sort_unstable();
        let until = now.saturating_add(PUT_OFF + longer);
        let put_off =
            self.app.db.write("sync.put_off", move |tx| outbox::put_off(tx, &lanes, now, until)).await;
        if let Err(error) = put_off {
            let error: ward_db::Error = error;
            tracing::error!(%error, "cannot postpone waiting integration queues; will retry");
        }
    }

    /// Serves every due queue once, and returns the number of settled deliveries. For tests and
    /// measurements.
    pub async fn turn(&self) -> usize {
        let places = Slots::new(usize::MAX);
        let now = self.app.clock.now();
        let due =
            self.due().await.into_iter().filter_map(|lane| Some((lane.key, places.take(&lane, now).ok()?)));
        stream::iter(due)
            .map(|(key, place)| async move { self.serve(key, &place).await })
            .buffer_unordered(self.options.lanes.max(1))
            .fold(0, async |sum, done| sum + done)
            .await
    }

    /// Integration queues that are due.
    async fn due(&self) -> Vec<Due> {
        let now = self.app.clock.now();
        match self.app.db.read("sync.due", move |tx| outbox::due_lanes(tx, now, LOOKED_AT)).await {
            Ok(due) => due,
            Err(error) => {
                let error: ward_db::Error = error;
                tracing::error!(%error, "cannot look for due deliveries; will retry");
                Vec::new()
            }
        }
    }

    fn step(&self, step: Step) {
        if let Some(on_step) = &self.options.on_step {
            on_step(step);
        }
    }

    /// The duration of a lease: several times the duration of everything that may happen within it.
    fn lease_time(&self) -> Duration {
        self.outbound().limits().total_time * 6
    }

    /// Serves a queue once. Its database work takes the turns of its workspace.
    async fn serve(&self, key: LaneKey, place: &Slot) -> usize {
        ward_db::in_background_for(Holder::Workspace(key.0).number(), self.serve_in_turn(key, place)).await
    }

    async fn serve_in_turn(&self, key: LaneKey, place: &Slot) -> usize {
        match self.places.in_turn(place, self.take(key, place)).await {
            Ok(Some(taken)) => self.deliver(taken, place).await,
            Ok(None) => 0,
            Err(error) => {
                tracing::error!(%error, "cannot lease an integration queue; will retry");
                // The slot stays taken in the meantime, so that the queue is not tried again in a tight
                // loop.
                tokio::time::sleep(self.options.poll).await;
                0
            }
        }
    }

    async fn deliver(&self, taken: Taken, place: &Slot) -> usize {
        self.step(Step::Leased);
        let Taken { lane, seen, work } = taken;
        // Deliveries not begun by then are left for the next turn, so that the lease outlives everything
        // that was begun.
        let begin_by = Instant::now() + self.outbound().limits().total_time;
        let connection = self.connection(&lane, seen).await;
        // A queue whose integration could not be read pauses a little, or it would be leased again in a
        // tight loop.
        let unsettled = connection.is_none();
        let progress = Mutex::new(Round { failures: lane.failures, unsettled, ..Round::default() });
        let stop = AtomicBool::new(false);
        stream::iter(work)
            .for_each_concurrent(self.options.concurrency.max(1), |leased| {
                let (lane, connection, progress, stop) = (&lane, connection.as_ref(), &progress, &stop);
                async move {
                    let in_time = || !stop.load(Ordering::Relaxed) && Instant::now() < begin_by;
                    let call = if in_time() {
                        // The turn may come late, so the time is checked again.
                        let ours = &leased;
                        let beginning = async move {
                            if in_time() { self.may_begin(lane, ours, stop).await } else { None }
                        };
                        self.places.in_turn(place, beginning).await
                    } else {
                        None
                    };
                    let (Some(connection), Some(call)) = (connection, call) else {
                        progress.lock().untried.push(leased);
                        return;
                    };
                    let started_at = self.app.clock.now();
                    let attempt = self.attempt(lane, connection, &leased, call.as_deref());
                    let tried = self.timed(place, attempt).await;
                    if tried.was_sent {
                        self.step(Step::Sent);
                    }
                    let settling = self.settle(lane, &leased, tried, started_at, progress, stop);
                    self.places.in_turn(place, settling).await;
                }
            })
            .await;
        self.step(Step::Settled);
        self.places.in_turn(place, self.leave(&lane, seen, progress.into_inner())).await
    }

    /// Runs an attempt to its end, and records its duration.
    async fn timed(&self, place: &Slot, attempt: impl Future<Output = Tried>) -> Tried {
        let began = Instant::now();
        let mut attempt = std::pin::pin!(attempt);
        let tried = match tokio::time::timeout(SLOW, &mut attempt).await {
            Ok(tried) => tried,
            Err(_elapsed) => {
                self.places.turn_slow(place, self.app.clock.now());
                attempt.await
            }
        };
        if tried.was_sent {
            self.places.note(place, began.elapsed(), self.app.clock.now());
        }
        tried
    }

    /// The check before each attempt: the process goes on, the lease is still this worker's, and no pause
    /// or deactivation has happened since. Returns the call to deliver; `None` if the attempt must not
    /// begin.
    async fn may_begin(
        &self,
        lane: &Lane,
        leased: &Leased,
        stop: &AtomicBool,
    ) -> Option<Option<Box<CallRecord>>> {
        if self.app.sync.stopped_at().is_some() {
            return None;
        }
        let (ours, call) = (lane.clone(), leased.call);
        let begun = self.app.db.read("sync.may_send", move |tx| {
            if !outbox::may_send(tx, &ours)? {
                return Ok(None);
            }
            Ok(Some(calls::by_id(tx, ours.key.0, call)?.map(Box::new)))
        });
        let begun = begun.await.unwrap_or_else(|error: ward_db::Error| {
            tracing::error!(%error, "cannot check whether the delivery is allowed; will retry");
            None
        });
        if begun.is_none() {
            stop.store(true, Ordering::Relaxed);
        }
        begun
    }

    /// One attempt, up to the EHR's answer.
    async fn attempt(
        &self,
        lane: &Lane,
        connection: &Connection,
        leased: &Leased,
        call: Option<&CallRecord>,
    ) -> Tried {
        // The last barrier: even if the database let it through, a call that was not real is not sent.
        let real = call.and_then(|call| call.direction.real().map(|direction| (call, direction)));
        let Some((call, direction)) = real else {
            metrics::counter!("ward_sync_stopped_total").increment(1);
            tracing::error!(delivery = %leased.id, "stopped the delivery of a call that was not real; it is marked as failed. This is a fault in Ward: report it");
            return Tried::unsent(Settled::Failed("not_a_real_call", leased.maybe_sent), "stopped");
        };
        let Some(form) = note::form_of(&connection.name) else {
            return Tried::unsent(Settled::Held("connector_takes_no_calls", leased.maybe_sent), "held");
        };
        let told = note::of(lane.key.0, call, direction);
        if form.needs_patient() && told.patient.is_none() {
            return Tried::unsent(Settled::Held(Missing::Patient.reason(), leased.maybe_sent), "held");
        }
        let told = match self.completed(connection, form, told, leased.maybe_sent).await {
            Ok(told) => told,
            Err(Stopped::Missing(fact)) => {
                return Tried::unsent(Settled::Held(fact.reason(), leased.maybe_sent), "held");
            }
            Err(Stopped::Failed(verdict)) => return Tried::of(leased, verdict, self.app.clock.now()),
        };
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
        progress: &Mutex<Round>,
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
        metrics::counter!("ward_sync_attempts_total", "outcome" => tried.outcome).increment(1);
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
                let held_for = |fact: &Missing| {
                    matches!(tried.settled, Settled::Held(reason, _) if reason == fact.reason())
                };
                if let Some(fact) = Missing::ALL.into_iter().find(held_for).filter(|_| settled) {
                    // The fact may have become known during the attempt.
                    let call = calls::by_id(tx, lane.key.0, leased.call)?;
                    if call.is_some_and(|call| call.detail(fact.detail()).is_some()) {
                        store::release_unmatched(tx, lane.key.0, leased.call, fact.reason(), ended_at)?;
                    }
                }
                Ok::<_, ward_db::Error>(settled)
            })
            .await;
        match settled {
            Ok(true) => progress.lock().settled += 1,
            Ok(false) => {
                tracing::warn!(
                    "an attempt outlived its lease; another worker has the delivery and will search the EHR first"
                );
            }
            // The mark stays: after the lease expires, the next worker searches the EHR before it sends
            // again.
            Err(error) => {
                tracing::error!(%error, "cannot store the outcome of an attempt; the next worker will search the EHR first");
                let mut progress = progress.lock();
                (progress.unsettled, progress.failures) = (true, progress.failures + 1);
                stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Ends the lease of the queue. If the integration was changed in the meantime, failures of its old
    /// configuration do not count.
    async fn leave(&self, lane: &Lane, seen: Timestamp, progress: Round) -> usize {
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
        let (lane, untried) = (lane.clone(), progress.untried);
        let left = self
            .app
            .db
            .write("sync.leave", move |tx| {
                outbox::guard_lane(tx, lane.key)?;
                outbox::put_back(tx, &lane, &untried)?;
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
            tracing::error!(%error, "cannot end the lease of an integration queue; it is free when the lease expires");
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
            tracing::error!(%error, "serving an integration queue panicked; it is free when the lease expires");
            served.remove(&error.id())
        }
    };
}

/// Keeps a worker running until it is told to stop; a worker that panics is replaced.
pub async fn keep_going(worker: Arc<Worker>) {
    while worker.app.sync.stopped_at().is_none() {
        let mut running = JoinSet::new();
        running.spawn(worker.clone().run());
        let ended = running.join_next().await;
        if worker.app.sync.stopped_at().is_some() {
            return;
        }
        tracing::error!(?ended, "the delivery worker stopped unexpectedly; starting another");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
