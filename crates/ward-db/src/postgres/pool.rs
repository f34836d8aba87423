//! A pool of sessions, each with a thread of its own, and the queues of work that wait for them.
//!
//! Short work and long reads have a queue each, and each kind has bounds on how much of it runs at once;
//! every session serves both. A few sessions are used as soon as there is work: as many as keep the
//! processors busy. Two dozen sessions that share two processors are slower than four. But a few sessions are
//! slow when they wait for a lock or for a distant server. So work that has waited for [`PATIENCE`] may have
//! another session.
//!
//! The work of different tenants is taken in turn, and the writes of one tenant occupy half of those few
//! sessions at most.
//!
//! Further connections are optional while one lives. The server, its limit for a role, or a pooler may refuse
//! them. The work then waits in its queue for an existing connection until its time limit. One thread asks
//! again, with growing pauses, so refusals never cause a storm of attempts. When several replicas share the
//! last connections, each gives one up now and then, so that a replica without any gets one.

mod line;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::mode::Source;
use super::session::Session;
use crate::turns::Party;
use crate::{Error, ErrorKind};
use line::{Line, PendingWork, WaitingWork};
use worker::Worker;

/// How long work waits before another session may help.
const PATIENCE: Duration = Duration::from_millis(5);

/// For how long connections count as scarce after a refusal.
const SCARCE: Duration = Duration::from_mins(1);

/// A kind of work, with its own queue and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads and writes that a key or a page bounds.
    Short,
    /// Reads that only a time limit bounds.
    Long,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Short, Self::Long];

    const fn index(self) -> usize {
        match self {
            Self::Short => 0,
            Self::Long => 1,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
        }
    }
}

/// How much of one kind of work may run at once.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// The limit for work that has just arrived.
    pub(super) ready: usize,
    /// The limit for work that has waited for [`PATIENCE`].
    pub(super) most: usize,
}

pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<Source>,
    bounds: [Bounds; 2],
    busy: [Gauge; 2],
    /// The waiting times of work that waited for [`PATIENCE`] or longer.
    wait: [Histogram; 2],
    connections: Gauge,
    refused: Counter,
    state: Mutex<PoolState>,
}

struct PoolState {
    lines: [Line; 2],
    /// How much work of each kind is running.
    active: [usize; 2],
    /// Idle threads with a connection. Last in, first out, so that unneeded ones stay idle until they are
    /// closed.
    idle: Vec<Arc<Seat>>,
    /// Idle threads without a connection, which the next connection uses.
    spare: Vec<Arc<Seat>>,
    /// The number of sessions with a connection.
    living: usize,
    /// The number of threads that connect, or pause before another attempt.
    growing: usize,
    /// The number of refused connections in a row.
    refusals: u32,
    /// The end of the time in which connections count as scarce.
    scarce_until: Option<Instant>,
    /// The time when a connection was last given up for other replicas.
    yielded: Option<Instant>,
    places: Vec<Arc<Seat>>,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

/// The mailbox in which one thread receives its orders.
#[derive(Default)]
struct Seat {
    next: Mutex<Option<Next>>,
    told: Condvar,
}

enum Handover {
    ToSession,
    /// The pool's first connection, which is being made.
    ToFirst,
    IntoLine,
}

enum Next {
    Run(WaitingWork),
    Grow,
    Stop,
}

impl Seat {
    fn tell(&self, next: Next) {
        *self.next.lock() = Some(next);
        self.told.notify_one();
    }

    /// The next order; `None` if none arrives within `time`.
    fn wait(&self, time: Duration) -> Option<Next> {
        let until = Instant::now() + time;
        let mut next = self.next.lock();
        while next.is_none() {
            if self.told.wait_until(&mut next, until).timed_out() {
                break;
            }
        }
        next.take()
    }
}

impl Pool {
    pub(super) fn new(source: Arc<Source>, short: Bounds, long: Bounds) -> Self {
        let bounds = [short, long].map(|Bounds { ready, most }| {
            let most = most.max(1);
            Bounds { ready: ready.clamp(1, most), most }
        });
        for kind in Kind::ALL {
            let most = u32::try_from(bounds[kind.index()].most).unwrap_or(u32::MAX);
            gauge!("ward_db_pool_size", "pool" => kind.label()).set(most);
        }
        let shared = Shared {
            source,
            bounds,
            busy: Kind::ALL.map(|kind| gauge!("ward_db_pool_busy", "pool" => kind.label())),
            wait: Kind::ALL.map(|kind| histogram!("ward_db_pool_wait_seconds", "pool" => kind.label())),
            connections: gauge!("ward_db_pool_connections"),
            refused: counter!("ward_db_connections_refused_total"),
            state: Mutex::new(PoolState::new(bounds)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Does `work` on a session, and again on another one if its connection was lost and cannot be replaced.
    /// [`ErrorKind::Unavailable`] if no session is free within `limit`. Work that has started is awaited
    /// without a limit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        kind: Kind,
        party: Party,
        limit: Duration,
        work: impl FnMut(&mut Session) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, mut answer) = oneshot::channel();
        // Set by the first of two: the thread that starts the work, or the caller that gives up.
        let settled = Arc::new(AtomicBool::new(false));
        let job = PendingWork::new(work, reply, Arc::clone(&settled));
        let began = Instant::now();
        // The first connection has its own time limit, apart from the wait for other work.
        let first = limit.max(self.shared.source.target.connect_time);
        let waiting = WaitingWork { since: began, until: began + first, kind, party, job: Box::new(job) };
        let limit = match self.shared.hand(kind, waiting)? {
            Handover::ToSession => return answer.await.unwrap_or_else(|_| Err(self.unanswered(&settled))),
            Handover::ToFirst => first,
            Handover::IntoLine => limit,
        };
        let mut waited = tokio::time::timeout(PATIENCE.min(limit), &mut answer).await;
        if waited.is_err() && limit > PATIENCE {
            self.shared.help();
            waited = tokio::time::timeout(limit.saturating_sub(PATIENCE), &mut answer).await;
        }
        match waited {
            Ok(answered) => answered.unwrap_or_else(|_| Err(self.unanswered(&settled))),
            Err(_) if !settled.swap(true, Ordering::AcqRel) => {
                Err(Error::unavailable("every connection to the database is busy"))
            }
            Err(_) => answer.await.unwrap_or_else(|_| Err(self.unanswered(&settled))),
        }
    }

    fn unanswered(&self, settled: &AtomicBool) -> Error {
        if settled.load(Ordering::Acquire) {
            // Only a bug in the worker drops work that has started.
            return Error::new(ErrorKind::Unknown, "a database thread gave no answer");
        }
        if self.is_closed() {
            Error::closed()
        } else {
            Error::unavailable("every connection to the database is busy")
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.state.lock().closed
    }

    /// Takes over a session that was used for another purpose, if the pool has none yet: its connection may
    /// be the last one that the server gives. Returns a session that is not needed.
    pub(super) fn adopt(&self, session: Session) -> Option<Session> {
        let mut state = self.shared.state.lock();
        if state.closed || state.living > 0 || !session.is_connected() {
            return Some(session);
        }
        state.living += 1;
        self.shared.connections.increment(1);
        if let Ok(place) = self.shared.spawn(&mut state, Some(session)) {
            state.idle.push(place);
            self.shared.dispatch(&mut state);
        } else {
            state.living -= 1;
            self.shared.connections.decrement(1);
        }
        None
    }

    /// Lets running work finish, refuses queued work, and ends the threads.
    pub(super) fn close(&self) {
        let (waiting, places, threads) = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            let PoolState { lines, places, threads, .. } = &mut *state;
            (lines.each_mut().map(Line::clear), std::mem::take(places), std::mem::take(threads))
        };
        drop(waiting);
        for place in places {
            // An order that the thread has not seen yet is replaced, and its work is refused like queued
            // work.
            place.tell(Next::Stop);
        }
        for thread in threads {
            // The last handle may be a closure's capture, dropped on one of these threads.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    /// Queues work, and gives it to a session if one is available.
    fn hand(self: &Arc<Self>, kind: Kind, waiting: WaitingWork) -> Result<Handover, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::closed());
        }
        state.lines[kind.index()].push(waiting);
        self.dispatch(&mut state);
        Ok(if state.lines[kind.index()].is_empty() {
            Handover::ToSession
        } else if state.living == 0 && state.refusals == 0 {
            Handover::ToFirst
        } else {
            Handover::IntoLine
        })
    }

    /// Dispatches again, for work that has waited for [`PATIENCE`].
    fn help(self: &Arc<Self>) {
        self.dispatch(&mut self.state.lock());
    }

    /// Gives work to idle sessions, and lets other threads connect for the rest.
    fn dispatch(self: &Arc<Self>, state: &mut PoolState) {
        while !state.idle.is_empty()
            && let Some(waiting) = self.take(state)
        {
            if let Some(place) = state.idle.pop() {
                place.tell(Next::Run(waiting));
            }
        }
        while self.may_grow(state) {
            let told = state.spare.pop().map(|place| place.tell(Next::Grow));
            if told.is_none()
                && let Err(error) = self.spawn(state, None)
            {
                tracing::warn!(%error, "a database thread cannot be started; work waits for the existing threads");
                return;
            }
            state.growing += 1;
        }
    }

    /// Takes the next work that a free session may do, and counts it as running.
    fn take(&self, state: &mut PoolState) -> Option<WaitingWork> {
        let kind = Kind::ALL
            .into_iter()
            .filter(|kind| self.room(state, *kind) > 0)
            .min_by_key(|kind| state.lines[kind.index()].since())?;
        let waiting = state.lines[kind.index()].pop()?;
        state.active[kind.index()] += 1;
        Some(waiting)
    }

    /// How much more work of a kind may start now.
    fn room(&self, state: &PoolState, kind: Kind) -> usize {
        let (line, bounds) = (&state.lines[kind.index()], self.bounds[kind.index()]);
        let mut most = if line.is_late(PATIENCE) { bounds.most } else { bounds.ready };
        if kind == Kind::Long && state.is_scarce() {
            // Long reads leave one connection to the other work.
            most = most.min(state.living.saturating_sub(1)).max(1);
        }
        most.saturating_sub(state.active[kind.index()]).min(line.startable())
    }

    /// Whether one more thread should connect.
    fn may_grow(&self, state: &PoolState) -> bool {
        let most: usize = self.bounds.iter().map(|bounds| bounds.most).sum();
        let wanted: usize = Kind::ALL.into_iter().map(|kind| self.room(state, kind)).sum();
        // After a refusal, one thread asks for all of them.
        let at_once = if state.refusals > 0 { 1 } else { most };
        state.growing < wanted.min(at_once) && state.living + state.growing < most
    }

    /// Starts a thread, which connects or uses the given session.
    fn spawn(self: &Arc<Self>, state: &mut PoolState, session: Option<Session>) -> Result<Arc<Seat>, Error> {
        let place = Arc::new(Seat::default());
        let (shared, its) = (Arc::clone(self), Arc::clone(&place));
        let thread = std::thread::Builder::new()
            .name("ward-db-session".into())
            .spawn(move || Worker::begin(shared, its, session))
            .map_err(|error| Error::unavailable("a database thread cannot be started").because(error))?;
        state.threads.push(thread);
        state.places.push(Arc::clone(&place));
        Ok(place)
    }
}

impl PoolState {
    fn new(bounds: [Bounds; 2]) -> Self {
        Self {
            lines: bounds.map(|bounds| Line::new(bounds.ready / 2)),
            active: [0; 2],
            idle: Vec::new(),
            spare: Vec::new(),
            living: 0,
            growing: 0,
            refusals: 0,
            scarce_until: None,
            yielded: None,
            places: Vec::new(),
            threads: Vec::new(),
            closed: false,
        }
    }

    fn is_scarce(&self) -> bool {
        self.scarce_until.is_some_and(|until| Instant::now() < until)
    }

    fn has_waiting(&self) -> bool {
        self.lines.iter().any(|line| !line.is_empty())
    }
}
