//! Delivery workers: they lease an integration queue, commit, talk to the EHR, and settle.
//!
//! Nothing is sent inside a transaction, and every delivery is marked as being sent before it is sent. So a
//! worker that dies leaves a mark, and the next worker searches the EHR before it sends again. Queues are
//! served in parallel, so an EHR that hangs delays no other queue. A worker that is told to stop begins
//! nothing new and finishes its running work.

mod completing;
mod leaving;
mod measuring;
mod reviewing;
mod sending;
mod shown;
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
use ward_db::{Timestamp, Tx};
use ward_ehr::delivery::Delivered;
use ward_ehr::{Outbound, Tokens};

use super::answers::{Attempt, answer_place};
use super::healing;
use super::outbox::{self, Due, Lane, LaneKey, Leased, Settled};
use super::refusals::{REFUSED, Refusals};
use super::{backoff, matching, note};
use crate::app::App;
use crate::audit::{Actor, Write};
use crate::calls::{self, CallRecord};
use crate::context::Context;
use crate::error::ApiError;
use crate::integrations::Connection;
use crate::shares::Holder;
use completing::Stopped;
use shown::Shown;
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
    shown: Shown,
}

/// The result so far of one turn of a queue.
#[derive(Default)]
struct Round {
    failures: i64,
    after: Option<Duration>,
    hold: Option<&'static str>,
    succeeded_at: Option<Timestamp>,
    settled: usize,
    /// The last equal refusals in a row, those of earlier turns included.
    refusals: Refusals,
    /// Whether the EHR took or judged a delivery.
    arrived: bool,
    /// Whether the outcome of an attempt could not be stored.
    unsettled: bool,
    /// The leased deliveries that were not begun. They return with the end of the lease, in one transaction: a
    /// slow EHR leaves most of a batch, and single transactions would be a burst.
    untried: Vec<Leased>,
}

impl Worker {
    /// A worker that sends with this client.
    pub fn new(app: Arc<App>, outbound: Outbound, tokens: Tokens, options: Options) -> Self {
        Self {
            app,
            client: Some((outbound, tokens)),
            places: Slots::new(options.lanes),
            shown: Shown::default(),
            options,
        }
    }

    /// A worker that sends with the server's own client.
    pub fn of(app: &Arc<App>) -> Self {
        let options = Options { lanes: app.config.outbound.lanes, ..Options::default() };
        Self {
            app: app.clone(),
            client: None,
            places: Slots::new(options.lanes),
            shown: Shown::default(),
            options,
        }
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

    /// The integration queues that this worker looks at next, because they are due.
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
        let refusals = lane.refusals.clone();
        let progress = Mutex::new(Round { failures: lane.failures, unsettled, refusals, ..Round::default() });
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
        let told = note::of(lane.key.0, call, direction, (&connection.name, &connection.delivery));
        let told = match self.completed((lane, connection, form), told, leased, call).await {
            Ok(told) => told,
            Err(Stopped::Review(review)) => return Tried::for_review(leased, review),
            Err(Stopped::Failed(verdict)) => {
                return Tried::of(leased, Delivered::without_answer(verdict), self.app.clock.now());
            }
        };
        let mut tried = self.send(connection, form, &told, leased).await;
        if lane.probing && lane.held_because.as_deref() == Some(REFUSED) && tried.refused.is_some() {
            // The queue is held because such refusals are about the integration. The next try takes another
            // delivery.
            tried.settled = Settled::Again(self.app.clock.now(), leased.maybe_sent);
            tried.arrived = false;
        }
        tried
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
            progress.arrived |= tried.arrived;
            match tried.refused {
                Some(status) if !lane.probing => {
                    progress.refusals.note(status, leased.id);
                    if progress.refusals.are_many() {
                        progress.hold = progress.hold.or(Some(REFUSED));
                    }
                }
                None if tried.arrived && !leased.is_check => progress.refusals = Refusals::default(),
                Some(_) | None => {}
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
        let is_double = count(leased, &tried, ended_at);
        let (lane, leased, sealed) = (lane.clone(), leased.clone(), self.seal(lane, leased, &tried));
        let offered = self.seal_offer(&lane, &leased, &tried);
        let settled = self
            .app
            .db
            .write("sync.settle", move |tx| {
                let detail = tried.detail.as_ref().map(Value::to_string);
                let attempt = Attempt {
                    outcome: tried.outcome,
                    status: tried.answered.as_ref().map(|answered| answered.status).or(tried.status),
                    started_at,
                    ended_at,
                    detail: detail.as_deref(),
                    content_type: tried
                        .answered
                        .as_ref()
                        .and_then(|answered| answered.content_type.as_deref()),
                    answer: sealed.as_deref(),
                    unknowns: leased.unknowns + tried.unknowns,
                };
                let settle = |tx: &mut Tx<'_>| {
                    let settle = if leased.is_check { healing::settle_check } else { outbox::settle };
                    Ok::<_, ApiError>(settle(tx, &lane, &leased, &tried.settled, &attempt)?)
                };
                if !is_double && tried.review.is_none() {
                    return settle(tx);
                }
                // Requests take the workspace's row before a delivery's, and so must Ward itself.
                let context = Context::of_time(ended_at);
                let write = &mut Write::begin(tx, lane.key.0, Actor::NOBODY, &context)?;
                let settled = settle(write)?;
                if settled && is_double {
                    let about = super::subject("delivery", Some(leased.id.0));
                    write.record("delivery.duplicate", about, tried.detail.clone().unwrap_or_default())?;
                }
                if let Some(review) = tried.review.as_ref().filter(|_| settled) {
                    reviewing::open(write, &leased, review, offered.as_deref())?;
                }
                Ok(settled)
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
                tracing::error!(cause = ?error.cause(), "cannot store the outcome of an attempt; the next worker will search the EHR first");
                let mut progress = progress.lock();
                (progress.unsettled, progress.failures) = (true, progress.failures + 1);
                stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The candidates of a review, sealed. `None` without candidates, and without a key to seal them under.
    fn seal_offer(&self, lane: &Lane, leased: &Leased, tried: &Tried) -> Option<Vec<u8>> {
        let candidates = tried.review.as_ref().map(|review| &review.candidates)?;
        let place = (lane.key.0, leased.id, matching::Part::Offered);
        if candidates.is_empty() { None } else { matching::seal(&self.app.vault, place, candidates) }
    }

    /// The beginning of the EHR's answer, sealed. `None` without an answer, and without a key to seal it under.
    fn seal(&self, lane: &Lane, leased: &Leased, tried: &Tried) -> Option<Vec<u8>> {
        let head = tried.answered.as_ref().map(|answered| &answered.head).filter(|head| !head.is_empty())?;
        let place = answer_place(lane.key.0, leased.id, leased.attempt);
        self.app.vault.seal(head, &place).ok()
    }
}

/// Counts an attempt. Returns whether the EHR was found to have the call more than once, and logs that.
fn count(leased: &Leased, tried: &Tried, ended_at: Timestamp) -> bool {
    metrics::counter!("ward_sync_attempts_total", "outcome" => tried.outcome).increment(1);
    // An amendment was queued long after its delivery.
    if matches!(tried.settled, Settled::Synced(_)) && leased.amendments.wanted.is_none() {
        let micros = ended_at.micros() - leased.created_at.micros();
        let waited = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        metrics::histogram!("ward_sync_delivery_seconds").record(waited);
    }
    let is_double = matches!(tried.settled, Settled::Failed("duplicate", _));
    if is_double {
        metrics::counter!("ward_sync_duplicates_total").increment(1);
        tracing::warn!(delivery = %leased.id, "the EHR has a call more than once; the delivery is `failed` with reason `duplicate` and names the resource to keep: remove the others in the EHR");
    }
    is_double
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
