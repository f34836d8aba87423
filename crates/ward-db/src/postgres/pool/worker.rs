//! One thread of the pool: it connects, works, and waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::connect::ConnectFailure;
use super::super::session::Session;
use super::line::Line;
use super::{Next, PATIENCE, PoolState, SCARCE, Seat, Shared, WaitingWork};
use crate::Error;
use crate::turns::Party;

/// A connection that is idle for this long is closed, unless it is the last one.
const IDLE: Duration = Duration::from_mins(5);

/// How often an idle thread checks whether its connection is needed elsewhere.
const LOOK: Duration = Duration::from_secs(5);

/// While connections are scarce, one older than this is given up, unless it is the last one. At most one is
/// given up in this time.
const SCARCE_LIFE: Duration = Duration::from_secs(4);

/// The first and the longest pause of a replica without a connection after a refusal.
const PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A replica that has a connection pauses longer, so that one without comes first.
const GENEROUS_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    shared: Arc<Shared>,
    place: Arc<Seat>,
    /// Whether the thread counts in `PoolState::living`.
    living: bool,
    /// Whether the thread counts in `PoolState::growing`.
    growing: bool,
    /// The index of its running work's kind, and the party of that work.
    active: Option<(usize, Party)>,
}

impl Worker {
    /// Runs the thread until the pool stops it.
    pub(super) fn begin(shared: Arc<Shared>, place: Arc<Seat>, session: Option<Session>) {
        let adopted = session.is_some();
        let mut worker = Self { shared, place, living: adopted, growing: !adopted, active: None };
        let session = session.map_or_else(|| Session::new(Arc::clone(&worker.shared.source)), Ok);
        let Ok(mut session) = session else {
            tracing::error!("a database thread cannot create its event loop, and ends");
            return;
        };
        // An adopted session counts as idle already.
        let mut next = if adopted { None } else { Some(Next::Grow) };
        loop {
            next = match next {
                Some(Next::Run(waiting)) => worker.run(&mut session, waiting),
                Some(Next::Grow) => worker.grow(&mut session),
                Some(Next::Stop) => break,
                None => Some(worker.idle(&mut session)),
            };
        }
        session.retire();
    }

    fn run(&mut self, session: &mut Session, mut waiting: WaitingWork) -> Option<Next> {
        let kind = waiting.kind;
        self.active = Some((kind.index(), waiting.party));
        if !session.is_alive() {
            return Some(self.give_back(session, waiting));
        }
        let waited = waiting.since.elapsed();
        if waited >= PATIENCE {
            self.shared.wait[kind.index()].record(waited);
        }
        let busy = &self.shared.busy[kind.index()];
        busy.increment(1);
        let done = waiting.job.run(session);
        busy.decrement(1);
        if !done {
            return Some(self.give_back(session, waiting));
        }
        // This comes before the answer, so that the caller's next call finds this session free.
        let next = if session.is_connected() && !self.is_to_yield(session) {
            self.freed()
        } else {
            session.retire();
            self.without_connection()
        };
        waiting.job.deliver();
        next
    }

    /// Returns work whose connection was lost before it was done. Other sessions may do it, and this thread
    /// connects again.
    fn give_back(&mut self, session: &mut Session, mut waiting: WaitingWork) -> Next {
        session.drop_connection();
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        self.uncount(&mut state);
        if state.closed {
            drop(state);
            waiting.job.refuse(Error::closed());
            return Next::Stop;
        }
        // The caller waits for as long as the work itself may take.
        waiting.until = waiting.until.max(Instant::now() + shared.source.options.closure_time);
        state.lines[waiting.kind.index()].put_back(waiting);
        state.growing += 1;
        self.growing = true;
        shared.dispatch(&mut state);
        Next::Grow
    }

    /// Whether a replica without a connection may need this connection more.
    fn is_to_yield(&self, session: &Session) -> bool {
        let mut state = self.shared.state.lock();
        let rested = state.yielded.is_none_or(|last| last.elapsed() > SCARCE_LIFE);
        let yields = rested && state.is_scarce() && state.living > 1 && session.age() > SCARCE_LIFE;
        if yields {
            state.yielded = Some(Instant::now());
        }
        yields
    }

    /// Takes the next work for the thread's connection. `None`: there is none, and the thread counts as idle.
    fn freed(&mut self) -> Option<Next> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        self.count_out(&mut state);
        if state.closed {
            return Some(Next::Stop);
        }
        if let Some(waiting) = shared.take(&mut state) {
            return Some(Next::Run(waiting));
        }
        state.idle.push(Arc::clone(&self.place));
        None
    }

    /// Counts the thread as one without a connection.
    fn without_connection(&mut self) -> Option<Next> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        self.uncount(&mut state);
        if state.closed {
            return Some(Next::Stop);
        }
        if state.is_scarce() {
            // The connection was given up for other replicas, so this one asks again only after a pause.
            state.refusals = state.refusals.max(1);
        }
        state.spare.push(Arc::clone(&self.place));
        shared.dispatch(&mut state);
        None
    }

    /// Connects and takes work. After a refusal the work waits for other sessions' connections, if there are
    /// any. It waits in any case while the server only lacks room. Otherwise the work fails with the reason.
    fn grow(&mut self, session: &mut Session) -> Option<Next> {
        if let Some(told) = self.pause() {
            return Some(told);
        }
        if self.is_not_needed() {
            return None;
        }
        let began = Instant::now();
        let refused = match session.connect(self.attempt_until(began)) {
            Ok(()) => {
                self.grown();
                return self.freed();
            }
            Err(refused) => refused,
        };
        self.shared.refused.increment(1);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        if state.closed {
            return Some(Next::Stop);
        }
        state.refusals = state.refusals.saturating_add(1);
        if refused.is_full {
            state.scarce_until = Some(Instant::now() + SCARCE);
        }
        let now = Instant::now();
        let hopeless = state.living == 0 && state.growing == 1 && !refused.is_full;
        let ends = |waiting: &WaitingWork| waiting.until <= now || (hopeless && waiting.since <= began);
        let ended: Vec<WaitingWork> = state.lines.iter_mut().flat_map(|line| line.extract(ends)).collect();
        shared.dispatch(&mut state);
        let again = state.has_waiting() && state.growing == 1;
        if !again {
            state.growing -= 1;
            self.growing = false;
            state.spare.push(Arc::clone(&self.place));
        }
        log(&refused, &state);
        drop(state);
        for waiting in ended {
            waiting
                .job
                .refuse(Error::unavailable(format!("the database cannot be reached: {}", refused.why)));
        }
        if again { Some(Next::Grow) } else { None }
    }

    /// The end of an attempt to connect: as late as the most patient waiting work allows.
    fn attempt_until(&self, now: Instant) -> Instant {
        let most = now + self.shared.source.options.closure_time;
        let state = self.shared.state.lock();
        state.lines.iter().filter_map(Line::last_until).max().map_or(most, |last| last.min(most))
    }

    /// Stops asking for a connection after refusals when no work waits any more.
    fn is_not_needed(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        if state.refusals == 0 || state.has_waiting() {
            return false;
        }
        state.growing -= 1;
        self.growing = false;
        state.spare.push(Arc::clone(&self.place));
        true
    }

    /// Pauses after refusals. Returns an order that arrived meanwhile.
    fn pause(&mut self) -> Option<Next> {
        let pause = {
            let state = self.shared.state.lock();
            if state.closed {
                return Some(Next::Stop);
            }
            if state.refusals == 0 || (state.living == 0 && !state.is_scarce()) {
                return None;
            }
            if state.living > 0 {
                GENEROUS_PAUSE
            } else {
                PAUSE.saturating_mul(1 << state.refusals.min(4)).min(LONGEST_PAUSE)
            }
        };
        let share = f64::from(crate::ambient::number().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
        self.place.wait(pause.mul_f64(0.5 + share / 2.0))
    }

    fn grown(&mut self) {
        let mut state = self.shared.state.lock();
        state.growing -= 1;
        state.living += 1;
        state.refusals = 0;
        (self.growing, self.living) = (false, true);
        drop(state);
        self.shared.connections.increment(1);
    }

    /// Waits for work, and closes a connection that stays unused.
    fn idle(&mut self, session: &mut Session) -> Next {
        session.slept();
        let since = Instant::now();
        loop {
            if let Some(told) = self.place.wait(LOOK) {
                self.growing |= matches!(told, Next::Grow);
                return told;
            }
            let shared = Arc::clone(&self.shared);
            let mut state = shared.state.lock();
            let position = state.idle.iter().position(|place| Arc::ptr_eq(place, &self.place));
            let Some(position) = position.filter(|_| state.living > 1) else { continue };
            if state.is_scarce() || since.elapsed() >= IDLE {
                let place = state.idle.remove(position);
                state.spare.push(place);
                self.uncount(&mut state);
                drop(state);
                session.retire();
            }
        }
    }

    /// Counts the thread's work as finished.
    fn count_out(&mut self, state: &mut PoolState) {
        if let Some((kind, party)) = self.active.take() {
            state.active[kind] -= 1;
            state.lines[kind].done(party);
        }
    }

    /// Counts the thread's work as finished and its connection as closed.
    fn uncount(&mut self, state: &mut PoolState) {
        self.count_out(state);
        if std::mem::take(&mut self.living) {
            state.living -= 1;
            self.shared.connections.decrement(1);
        }
    }
}

impl Drop for Worker {
    /// Counts a thread out, however it ends.
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        self.uncount(&mut state);
        if self.growing {
            state.growing -= 1;
        }
    }
}

fn log(refused: &ConnectFailure, state: &PoolState) {
    if !refused.is_full {
        tracing::debug!(why = refused.why, "a connection to the database could not be made");
    } else if state.refusals.is_power_of_two() {
        tracing::warn!(
            why = refused.why,
            connections = state.living,
            "the database gives no further connection, so requests wait for the existing ones. Raise its connection \
            limit, or lower database_connections"
        );
    }
}
