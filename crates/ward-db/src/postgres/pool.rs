//! A pool of threads, each with a session of its own.
//!
//! There are never more threads than connections. Work for which no thread is free waits in a line, without a thread, and a
//! thread that has finished takes the next of the line at once: while there is a line, nobody sleeps or is woken.

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
    most: usize,
    busy: Gauge,
    open: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Last in, first out, so that those not needed grow idle enough to be let go.
    idle: Vec<Arc<Place>>,
    line: VecDeque<Job>,
    running: usize,
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
    /// At most `most` sessions, opened as they are needed.
    pub(super) fn new(source: Arc<Source>, label: &'static str, most: usize) -> Self {
        let most = most.max(1);
        let shared = Shared {
            source,
            label,
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
            let waited = tokio::time::timeout(limit, &mut answer).await;
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
        if self.shared.state.lock().closed && !settled.load(Ordering::Acquire) {
            return Error::closed();
        }
        // Only a bug in there drops work unanswered.
        Error::new(ErrorKind::Unknown, "a database thread gave no answer")
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
    /// Gives a job to a thread that is idle, or a new one, or puts it into the line.
    fn hand(self: &Arc<Self>, job: Job) -> Result<Handed, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::closed());
        }
        if let Some(place) = state.idle.pop() {
            drop(state);
            place.tell(Next::Run(job));
            return Ok(Handed::ToThread);
        }
        if state.running >= self.most {
            state.line.push_back(job);
            return Ok(Handed::IntoLine);
        }
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(format!("ward-db-{}", self.label))
            .spawn(move || shared.work(job))
            .map_err(|error| Error::unavailable("a database thread cannot be started").because(error))?;
        state.running += 1;
        state.threads.push(thread);
        Ok(Handed::ToThread)
    }

    fn work(&self, first: Job) {
        self.open.increment(1);
        let _ended = Ended(self);
        let Ok(mut session) = Session::new(Arc::clone(&self.source)) else {
            tracing::error!("a database thread has no event loop");
            return;
        };
        let place = Arc::new(Place::default());
        let mut job = first;
        loop {
            self.busy.increment(1);
            let deliver = job(&mut session);
            self.busy.decrement(1);
            let mut state = self.state.lock();
            let next = state.line.pop_front();
            let closed = state.closed;
            if next.is_none() && !closed {
                // Before the answer goes out: who calls again at once finds it there.
                state.idle.push(Arc::clone(&place));
            }
            drop(state);
            deliver();
            job = match next {
                Some(next) => next,
                None if closed => break,
                None => match Self::idle(&place, &mut session) {
                    Some(next) => next,
                    None => break,
                },
            };
        }
        session.retire();
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

/// Counts a thread out, however it ends.
struct Ended<'p>(&'p Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.open.decrement(1);
        self.0.state.lock().running -= 1;
    }
}
