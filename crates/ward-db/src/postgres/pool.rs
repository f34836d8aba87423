//! A pool of threads, each with a session of its own.
//!
//! There are never more threads than connections. Work for which no thread is free waits in a line, without a thread, and a
//! thread that has finished takes the next of the line at once: while there is a line, nobody sleeps or is woken.
//!
//! A few threads are used as soon as there is work: as many as keep the processors busy. Two dozen that take turns on two
//! processors are slower than four. What these few cannot be fast at is waiting, for a lock or for a server that is far
//! away: so whatever has stood in line for a moment gets another thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{Gauge, Histogram, gauge, histogram};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::mode::Source;
use super::session::Session;
use crate::{Error, ErrorKind};

/// A connection idle for so long is let go; the thread that had it opens another when it is needed.
const IDLE: Duration = Duration::from_mins(5);

/// How long work stands in line before another thread helps.
const PATIENCE: Duration = Duration::from_millis(5);

/// What a thread does with its session, and what it does when others may see that it is free again.
type Job = Box<dyn FnOnce(&mut Session) -> Deliver + Send>;
type Deliver = Box<dyn FnOnce() + Send>;

pub(super) struct Pool {
    shared: Arc<Shared>,
    wait: Histogram,
}

struct Shared {
    source: Arc<Source>,
    label: &'static str,
    /// How many are used as soon as there is work.
    ready: usize,
    most: usize,
    busy: Gauge,
    open: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Last in, first out, so that those not needed grow idle enough to be let go.
    idle: Vec<Arc<Place>>,
    line: VecDeque<(Instant, Job)>,
    /// Threads that have work.
    active: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

/// Where an idle thread waits.
#[derive(Default)]
struct Place {
    next: Mutex<Option<Next>>,
    told: Condvar,
}

enum Next {
    Run(Job),
    Stop,
}

/// What became of a job.
enum Handed {
    ToThread,
    IntoLine,
}

impl Pool {
    /// At most `most` sessions, opened as they are needed; `ready` of them at once.
    pub(super) fn new(source: Arc<Source>, label: &'static str, ready: usize, most: usize) -> Self {
        let most = most.max(1);
        let ready = ready.clamp(1, most);
        let shared = Shared {
            source,
            label,
            ready,
            most,
            busy: gauge!("ward_db_pool_busy", "pool" => label),
            open: gauge!("ward_db_pool_threads", "pool" => label),
            state: Mutex::default(),
        };
        gauge!("ward_db_pool_size", "pool" => label).set(u32::try_from(most).unwrap_or(u32::MAX));
        Self { shared: Arc::new(shared), wait: histogram!("ward_db_pool_wait_seconds", "pool" => label) }
    }

    /// Does `work` on a session. [`ErrorKind::Unavailable`] when none is free within `limit`; once it has begun, it is waited
    /// for however long it takes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Session) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, mut answer) = oneshot::channel();
        // Set by the thread that begins, or by the caller who gives up: whoever is first.
        let settled = Arc::new(AtomicBool::new(false));
        let mine = Arc::clone(&settled);
        let handed = self.shared.hand(Box::new(move |session| {
            if reply.is_closed() || mine.swap(true, Ordering::AcqRel) {
                return Box::new(|| ());
            }
            let outcome = work(session);
            Box::new(move || drop(reply.send(outcome)))
        }))?;
        if matches!(handed, Handed::IntoLine) {
            let began = Instant::now();
            let mut waited = tokio::time::timeout(PATIENCE.min(limit), &mut answer).await;
            if waited.is_err() && limit > PATIENCE {
                self.shared.help();
                waited = tokio::time::timeout(limit.saturating_sub(PATIENCE), &mut answer).await;
            }
            self.wait.record(began.elapsed());
            match waited {
                Ok(answered) => return answered.map_err(|_| self.unanswered(&settled)),
                Err(_) if !settled.swap(true, Ordering::AcqRel) => {
                    return Err(Error::unavailable("every connection to the database is busy"));
                }
                Err(_) => {}
            }
        }
        answer.await.map_err(|_| self.unanswered(&settled))
    }

    fn unanswered(&self, settled: &AtomicBool) -> Error {
        if settled.load(Ordering::Acquire) {
            // Only a bug in there drops work that was begun.
            return Error::new(ErrorKind::Unknown, "a database thread gave no answer");
        }
        if self.is_closed() { Error::closed() } else { Error::unavailable("no database thread could begin") }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.state.lock().closed
    }

    /// Lets the work that was begun finish, and ends the threads. What stands in line is refused.
    pub(super) fn close(&self) {
        let (idle, line, threads) = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            let State { idle, line, threads, .. } = &mut *state;
            (std::mem::take(idle), std::mem::take(line), std::mem::take(threads))
        };
        drop(line);
        for place in idle {
            place.tell(Next::Stop);
        }
        for thread in threads {
            // The last handle may have been a closure's capture, dropped on one of these threads.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Place {
    fn tell(&self, next: Next) {
        *self.next.lock() = Some(next);
        self.told.notify_one();
    }

    /// What was told; `None` after a long time of nothing.
    fn wait(&self) -> Option<Next> {
        let until = Instant::now() + IDLE;
        let mut next = self.next.lock();
        while next.is_none() {
            if self.told.wait_until(&mut next, until).timed_out() {
                break;
            }
        }
        next.take()
    }
}

impl Shared {
    /// Gives a job to a thread, or puts it into the line.
    fn hand(self: &Arc<Self>, job: Job) -> Result<Handed, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::closed());
        }
        if state.active >= self.ready {
            state.line.push_back((Instant::now(), job));
            return Ok(Handed::IntoLine);
        }
        let place = self.place(&mut state)?;
        state.active += 1;
        drop(state);
        place.tell(Next::Run(job));
        Ok(Handed::ToThread)
    }

    /// Gives what stands first in line to one more thread, if it has stood there for long and there may be one more.
    fn help(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.active >= self.most || !state.is_late() {
            return;
        }
        let Some((since, job)) = state.line.pop_front() else { return };
        match self.place(&mut state) {
            Ok(place) => {
                state.active += 1;
                drop(state);
                place.tell(Next::Run(job));
            }
            Err(error) => {
                tracing::warn!(%error, "work waits for a thread that is free");
                state.line.push_front((since, job));
            }
        }
    }

    /// Where an idle thread waits, or a new one.
    fn place(self: &Arc<Self>, state: &mut State) -> Result<Arc<Place>, Error> {
        if let Some(place) = state.idle.pop() {
            return Ok(place);
        }
        let place = Arc::new(Place::default());
        let (shared, its) = (Arc::clone(self), Arc::clone(&place));
        let thread = std::thread::Builder::new()
            .name(format!("ward-db-{}", self.label))
            .spawn(move || shared.work(&its))
            .map_err(|error| Error::unavailable("a database thread cannot be started").because(error))?;
        state.threads.push(thread);
        Ok(place)
    }

    fn work(&self, place: &Arc<Place>) {
        self.open.increment(1);
        let mut ended = Ended { shared: self, active: true };
        let Ok(mut session) = Session::new(Arc::clone(&self.source)) else {
            tracing::error!("a database thread has no event loop");
            // What it was to do has not begun, and is told so.
            drop(place.wait());
            return;
        };
        let mut next = None;
        while let Some(job) = next.take().or_else(|| Self::idle(place, &mut session)) {
            ended.active = true;
            self.busy.increment(1);
            let deliver = job(&mut session);
            self.busy.decrement(1);
            next = self.next(place);
            ended.active = next.is_some();
            deliver();
        }
        session.retire();
    }

    /// What a thread does next. `None`: it is idle from now on, and whoever calls at once finds it so.
    fn next(&self, place: &Arc<Place>) -> Option<Job> {
        let mut state = self.state.lock();
        if (state.active <= self.ready || state.is_late())
            && let Some((_, job)) = state.line.pop_front()
        {
            return Some(job);
        }
        state.active -= 1;
        if state.closed {
            place.tell(Next::Stop);
        } else {
            state.idle.push(Arc::clone(place));
        }
        None
    }

    /// Waits for work. `None`: there will be none.
    fn idle(place: &Place, session: &mut Session) -> Option<Job> {
        session.slept();
        loop {
            match place.wait() {
                Some(Next::Run(job)) => return Some(job),
                Some(Next::Stop) => return None,
                None => session.retire(),
            }
        }
    }
}

impl State {
    /// Whether what stands first in line has stood there for long.
    fn is_late(&self) -> bool {
        self.line.front().is_some_and(|(since, _)| since.elapsed() >= PATIENCE)
    }
}

/// Counts a thread out, however it ends.
struct Ended<'p> {
    shared: &'p Shared,
    active: bool,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.shared.open.decrement(1);
        self.shared.state.lock().active -= usize::from(self.active);
    }
}
