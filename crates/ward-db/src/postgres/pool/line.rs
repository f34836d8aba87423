//! The queue of work that waits for a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::session::Session;
use super::Kind;
use crate::Error;
use crate::turns::{Party, Turns};

/// Work for a session, with any type of result.
pub(super) trait Job: Send {
    /// Does the work. False: the connection was lost before anything was decided, so another session should
    /// do it.
    fn run(&mut self, session: &mut Session) -> bool;
    /// Sends the result to the caller.
    fn deliver(self: Box<Self>);
    /// Tells the caller that the work was not done.
    fn refuse(self: Box<Self>, error: Error);
}

pub(super) struct PendingWork<T, F> {
    work: F,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, Error>>,
    settled: Arc<AtomicBool>,
}

impl<T, F> PendingWork<T, F> {
    pub(super) const fn new(
        work: F,
        reply: oneshot::Sender<Result<T, Error>>,
        settled: Arc<AtomicBool>,
    ) -> Self {
        Self { work, outcome: None, reply, settled }
    }
}

impl<T: Send, F: FnMut(&mut Session) -> T + Send> Job for PendingWork<T, F> {
    fn run(&mut self, session: &mut Session) -> bool {
        if self.reply.is_closed() || self.settled.swap(true, Ordering::AcqRel) {
            return true;
        }
        let outcome = (self.work)(session);
        if session.is_starved() {
            self.settled.store(false, Ordering::Release);
            return false;
        }
        self.outcome = Some(outcome);
        true
    }

    fn deliver(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            let _ = self.reply.send(Ok(outcome));
        }
    }

    fn refuse(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

pub(super) struct WaitingWork {
    pub(super) since: Instant,
    /// The time at which the caller gives up.
    pub(super) until: Instant,
    pub(super) kind: Kind,
    pub(super) party: Party,
    pub(super) job: Box<dyn Job>,
}

/// Waiting work of one kind. The parties are served in turn.
pub(super) struct Line(Turns<WaitingWork>);

impl Line {
    /// A line that starts at most `writes_each` writes of one request party at once. The writes of one
    /// workspace wait for each other at its row, so more of them would only occupy connections.
    pub(super) fn new(writes_each: usize) -> Self {
        Self(Turns::new(writes_each))
    }

    pub(super) fn push(&mut self, waiting: WaitingWork) {
        self.0.push(waiting.party, waiting);
    }

    /// Puts work that was taken too early back to the front.
    pub(super) fn put_back(&mut self, waiting: WaitingWork) {
        self.0.put_back(waiting.party, waiting);
    }

    pub(super) fn pop(&mut self) -> Option<WaitingWork> {
        self.0.pop().map(|(_, waiting)| waiting)
    }

    /// Counts work that was taken as finished.
    pub(super) fn done(&mut self, party: Party) {
        self.0.done(party);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.waiting() == 0
    }

    /// How much of the waiting work may start now.
    pub(super) const fn startable(&self) -> usize {
        self.0.startable()
    }

    /// The time since which the next work waits.
    pub(super) fn since(&self) -> Option<Instant> {
        self.0.front().map(|next| next.since)
    }

    /// The latest time at which any of the waiting callers gives up.
    pub(super) fn last_until(&self) -> Option<Instant> {
        self.0.iter().map(|waiting| waiting.until).max()
    }

    /// Whether the next work has waited for `patience`.
    pub(super) fn is_late(&self, patience: Duration) -> bool {
        self.since().is_some_and(|since| since.elapsed() >= patience)
    }

    /// Removes the matching work. The caller ends it without holding a lock, because dropping a closure may
    /// drop more.
    pub(super) fn extract(&mut self, fits: impl Fn(&WaitingWork) -> bool) -> Vec<WaitingWork> {
        self.0.extract(fits)
    }

    /// Removes all work. The caller ends it without holding a lock, as with [`Self::extract`].
    pub(super) fn clear(&mut self) -> Vec<WaitingWork> {
        self.0.extract(|_| true)
    }
}
