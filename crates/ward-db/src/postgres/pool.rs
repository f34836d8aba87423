//! A pool of threads, each with a session of its own.
//!
//! A call first waits, without a thread, for its turn; then a thread that has a session takes it. So there are never
//! more threads than connections, and none is blocked for want of one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{Gauge, Histogram, gauge, histogram};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::mode::Source;
use super::session::Session;
use crate::Error;

/// A connection idle for so long is let go; the thread that had it opens another when it is needed.
const IDLE: Duration = Duration::from_mins(5);

/// What a thread does with its session, and what it does when it has given the session back.
pub(super) type Job = Box<dyn FnOnce(&mut Session) -> Deliver + Send>;
pub(super) type Deliver = Box<dyn FnOnce() + Send>;

enum Message {
    Run(OwnedSemaphorePermit, Job),
    Stop,
}

pub(super) struct Pool {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
    wait: Histogram,
}

struct Shared {
    source: Arc<Source>,
    label: &'static str,
    busy: Gauge,
    open: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Last in, first out, so that those not needed grow idle enough to be let go.
    idle: Vec<Sender<Message>>,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Pool {
    /// At most `most` sessions, opened as they are needed.
    pub(super) fn new(source: Arc<Source>, label: &'static str, most: usize) -> Self {
        let shared = Shared {
            source,
            label,
            busy: gauge!("ward_db_pool_busy", "pool" => label),
            open: gauge!("ward_db_pool_threads", "pool" => label),
            state: Mutex::default(),
        };
        gauge!("ward_db_pool_size", "pool" => label).set(u32::try_from(most).unwrap_or(u32::MAX));
        Self {
            shared: Arc::new(shared),
            turns: Arc::new(Semaphore::new(most.max(1))),
            wait: histogram!("ward_db_pool_wait_seconds", "pool" => label),
        }
    }

    /// Waits for a turn. [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when none comes in time.
    pub(super) async fn turn(&self, limit: Duration) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let started = Instant::now();
        let turn = tokio::time::timeout(limit, Arc::clone(&self.turns).acquire_owned()).await;
        self.wait.record(started.elapsed());
        turn.map_err(|_| Error::unavailable("every connection to the database is busy"))?
            .map_err(|_| Error::closed())
    }

    /// Gives a job to a thread.
    pub(super) fn hand(&self, turn: OwnedSemaphorePermit, job: Job) -> Result<(), Error> {
        let mut message = Message::Run(turn, job);
        let mut state = self.shared.state.lock();
        while let Some(thread) = state.idle.pop() {
            match thread.send(message) {
                Ok(()) => return Ok(()),
                Err(returned) => message = returned.0,
            }
        }
        if state.closed {
            return Err(Error::closed());
        }
        let (sender, receiver) = channel();
        // Its receiver is two lines above.
        let _ = sender.send(message);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(format!("ward-db-{}", shared.label))
            .spawn(move || shared.work(&sender, &receiver))
            .map_err(|error| Error::unavailable("a database thread cannot be started").because(error))?;
        state.threads.push(thread);
        Ok(())
    }

    /// Lets the calls that were taken finish, and ends the threads. Those that wait are refused.
    pub(super) fn close(&self) {
        self.turns.close();
        let (idle, threads) = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.threads))
        };
        for thread in idle {
            let _ = thread.send(Message::Stop);
        }
        for thread in threads {
            // The last handle may have been a closure's capture, dropped on one of these threads.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn work(&self, sender: &Sender<Message>, receiver: &Receiver<Message>) {
        let Ok(mut session) = Session::new(Arc::clone(&self.source)) else {
            tracing::error!("a database thread has no event loop");
            return;
        };
        self.open.increment(1);
        loop {
            match receiver.recv_timeout(IDLE) {
                Ok(Message::Run(turn, job)) => {
                    self.busy.increment(1);
                    let deliver = job(&mut session);
                    self.busy.decrement(1);
                    // Back among the idle before the answer goes out: who calls again at once finds it there.
                    let closed = {
                        let mut state = self.state.lock();
                        if !state.closed {
                            state.idle.push(sender.clone());
                        }
                        state.closed
                    };
                    drop(turn);
                    deliver();
                    if closed {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => session.retire(),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        session.retire();
        self.open.decrement(1);
    }
}
