//! The queue of work that waits for a session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::session::Session;
use super::Kind;
use crate::Error;

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

pub(super) struct Pending<T, F> {
    work: F,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, Error>>,
    settled: Arc<AtomicBool>,
}

impl<T, F> Pending<T, F> {
    pub(super) const fn new(
        work: F,
        reply: oneshot::Sender<Result<T, Error>>,
        settled: Arc<AtomicBool>,
    ) -> Self {
        Self { work, outcome: None, reply, settled }
    }
}

impl<T: Send, F: FnMut(&mut Session) -> T + Send> Job for Pending<T, F> {
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

pub(super) struct Waiting {
    pub(super) since: Instant,
    /// The time at which the caller gives up.
    pub(super) until: Instant,
    pub(super) kind: Kind,
    pub(super) job: Box<dyn Job>,
}

/// Waiting work of one kind, the oldest first.
#[derive(Default)]
pub(super) struct Line(VecDeque<Waiting>);

impl Line {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.0.push_back(waiting);
    }

    /// Puts work that was taken too early back to the front.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        self.0.push_front(waiting);
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.0.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time since which the first work waits.
    pub(super) fn since(&self) -> Option<Instant> {
        self.0.front().map(|first| first.since)
    }

    /// The latest time at which any of the waiting callers gives up.
    pub(super) fn last_until(&self) -> Option<Instant> {
        self.0.iter().map(|waiting| waiting.until).max()
    }

    /// Whether the first work has waited for `patience`.
    pub(super) fn is_late(&self, patience: Duration) -> bool {
        self.since().is_some_and(|since| since.elapsed() >= patience)
    }

    /// Removes the matching work. The caller ends it without holding a lock, because dropping a closure may
    /// drop more.
    pub(super) fn extract(&mut self, fits: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let (out, kept): (Vec<_>, Vec<_>) = self.0.drain(..).partition(|waiting| fits(waiting));
        self.0.extend(kept);
        out
    }
}
