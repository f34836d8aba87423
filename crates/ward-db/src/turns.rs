//! A queue that serves parties in turn, so that no tenant's work waits behind all the work of another.
//!
//! Within a party the order is first in, first out. Requests and background work alternate: a burst of one
//! kind delays the other by one piece of work at most. Background work that belongs to a tenant takes that
//! tenant's turn ([`in_background_for`]).

use std::collections::{HashMap, VecDeque};

use crate::deadline::Deadline;

tokio::task_local! {
    static BACKGROUND: u128;
}

/// Runs work outside of requests that belongs to one tenant. When its closures wait, they take turns with the
/// background work of other tenants. Tasks that `work` spawns are not included.
pub fn in_background_for<F: Future>(party: u128, work: F) -> impl Future<Output = F::Output> {
    BACKGROUND.scope(party, work)
}

/// The owner of waiting work. Parties take turns, each with one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Party {
    source: Source,
    writes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// A request, and the tenant or address that it is charged to ([`Deadline::charge_to`]).
    Request(u128),
    /// Work outside of requests that belongs to a tenant ([`in_background_for`]).
    Behind(u128),
    /// All other work, by its closure's name.
    Background(&'static str),
}

impl Party {
    /// The party of a closure that the current task starts.
    pub(crate) fn current(name: &'static str, writes: bool) -> Self {
        let behind = || BACKGROUND.try_with(|party| Source::Behind(*party));
        let source = Deadline::charged().map(Source::Request).or_else(|| behind().ok());
        Self { source: source.unwrap_or(Source::Background(name)), writes }
    }

    /// Whether a request causes this work, and not a background task.
    pub(crate) const fn is_request(self) -> bool {
        matches!(self.source, Source::Request(_))
    }

    /// Whether the work belongs to a tenant or an address. Only the writes of such a party are bounded.
    const fn is_of_one(self) -> bool {
        matches!(self.source, Source::Request(_) | Source::Behind(_))
    }

    const fn class(self) -> usize {
        if self.is_request() { 0 } else { 1 }
    }
}

/// Waiting work, by party. A party with neither waiting nor running work takes no memory.
pub(crate) struct Turns<T> {
    queues: HashMap<Party, Queue<T>>,
    /// The parties that may start work, in the order of their turns: requests, then background work.
    ready: [VecDeque<Party>; 2],
    /// The class that was served last.
    last: usize,
    waiting: usize,
    startable: usize,
    /// How many writes of one tenant may run at once, in requests and as much again in the background.
    writes_each: usize,
}

struct Queue<T> {
    waiting: VecDeque<T>,
    running: usize,
    /// This queue's part of [`Turns::startable`].
    startable: usize,
    has_turn: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), running: 0, startable: 0, has_turn: false }
    }
}

impl<T> Turns<T> {
    pub(crate) fn new(writes_each: usize) -> Self {
        Self {
            queues: HashMap::new(),
            ready: [VecDeque::new(), VecDeque::new()],
            last: 1,
            waiting: 0,
            startable: 0,
            writes_each: writes_each.max(1),
        }
    }

    pub(crate) fn push(&mut self, party: Party, item: T) {
        self.queues.entry(party).or_default().waiting.push_back(item);
        self.waiting += 1;
        self.update(party);
    }

    /// Puts an item that was taken too early back to the front of its party's queue.
    pub(crate) fn put_back(&mut self, party: Party, item: T) {
        self.queues.entry(party).or_default().waiting.push_front(item);
        self.waiting += 1;
        self.update(party);
    }

    /// Takes the next item, which counts as running until [`Self::done`].
    pub(crate) fn pop(&mut self) -> Option<(Party, T)> {
        for class in [1 - self.last, self.last] {
            while let Some(party) = self.ready[class].pop_front() {
                let Some(queue) = self.queues.get_mut(&party) else { continue };
                queue.has_turn = false;
                let taken = if queue.startable > 0 { queue.waiting.pop_front() } else { None };
                if taken.is_some() {
                    queue.running += 1;
                    self.waiting -= 1;
                    self.last = class;
                }
                self.update(party);
                if let Some(item) = taken {
                    return Some((party, item));
                }
            }
        }
        None
    }

    /// Counts one item of the party as finished.
    pub(crate) fn done(&mut self, party: Party) {
        if let Some(queue) = self.queues.get_mut(&party) {
            queue.running = queue.running.saturating_sub(1);
        }
        self.update(party);
    }

    /// The item that [`Self::pop`] would take.
    pub(crate) fn front(&self) -> Option<&T> {
        let classes = [1 - self.last, self.last];
        let mut queues =
            classes.iter().flat_map(|class| &self.ready[*class]).filter_map(|party| self.queues.get(party));
        queues.find(|queue| queue.startable > 0)?.waiting.front()
    }

    /// The number of items that wait, of all parties.
    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many items of one party wait.
    pub(crate) fn waiting_of(&self, party: Party) -> usize {
        self.queues.get(&party).map_or(0, |queue| queue.waiting.len())
    }

    /// How many of the waiting items may start now.
    pub(crate) const fn startable(&self) -> usize {
        self.startable
    }

    /// All items that wait, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.queues.values().flat_map(|queue| &queue.waiting)
    }

    /// Removes the matching items of all parties, each in the order of its queue.
    pub(crate) fn extract(&mut self, fits: impl Fn(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for party in self.queues.keys().copied().collect::<Vec<_>>() {
            let Some(queue) = self.queues.get_mut(&party) else { continue };
            let (taken, kept): (Vec<T>, VecDeque<T>) = {
                let (taken, kept): (Vec<_>, Vec<_>) = queue.waiting.drain(..).partition(|item| fits(item));
                (taken, kept.into())
            };
            queue.waiting = kept;
            self.waiting -= taken.len();
            out.extend(taken);
            self.update(party);
        }
        out
    }

    /// Brings the counts and the turn of a party up to date after a change of its queue.
    fn update(&mut self, party: Party) {
        let Some(queue) = self.queues.get_mut(&party) else { return };
        let room = if party.writes && party.is_of_one() {
            self.writes_each.saturating_sub(queue.running)
        } else {
            usize::MAX
        };
        let startable = queue.waiting.len().min(room);
        self.startable = self.startable - queue.startable + startable;
        queue.startable = startable;
        if startable > 0 && !queue.has_turn {
            queue.has_turn = true;
            self.ready[party.class()].push_back(party);
        } else if queue.waiting.is_empty() && queue.running == 0 {
            if queue.has_turn {
                // Otherwise the party would have two turns when it comes again.
                self.ready[party.class()].retain(|ready| *ready != party);
            }
            self.queues.remove(&party);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn request(tenant: u128) -> Party {
        Party { source: Source::Request(tenant), writes: true }
    }

    const fn behind(tenant: u128) -> Party {
        Party { source: Source::Behind(tenant), writes: true }
    }

    const fn background(name: &'static str) -> Party {
        Party { source: Source::Background(name), writes: true }
    }

    fn order(turns: &mut Turns<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.pop().map(|(party, item)| (turns.done(party), item).1)).collect()
    }

    #[test]
    fn a_party_with_little_work_does_not_wait_behind_one_with_much() {
        let mut turns = Turns::new(usize::MAX);
        for item in ["loud 1", "loud 2", "loud 3"] {
            turns.push(request(1), item);
        }
        turns.push(request(2), "quiet 1");
        turns.push(background("settle"), "settle 1");
        turns.push(background("settle"), "settle 2");
        turns.push(background("take"), "take 1");
        assert_eq!(turns.front(), Some(&"loud 1"));
        assert_eq!((turns.waiting(), turns.waiting_of(request(1))), (7, 3));
        let expected = ["loud 1", "settle 1", "quiet 1", "take 1", "loud 2", "settle 2", "loud 3"];
        assert_eq!(order(&mut turns), expected);
        assert_eq!((turns.waiting(), turns.startable(), turns.queues.len()), (0, 0, 0));
    }

    #[test]
    fn the_background_work_of_a_tenant_does_not_wait_behind_that_of_another() {
        let mut turns = Turns::new(2);
        for item in ["loud 1", "loud 2", "loud 3"] {
            turns.push(behind(1), item);
        }
        turns.push(behind(2), "quiet 1");
        assert_eq!(turns.startable(), 3, "two of the loud tenant's, and one of the quiet one's");
        assert_eq!(order(&mut turns), ["loud 1", "quiet 1", "loud 2", "loud 3"]);
    }

    #[tokio::test]
    async fn a_party_is_that_of_the_request_or_of_the_background_work() {
        let of = async || Party::current("settle", true);
        assert_eq!(of().await, background("settle"));
        assert_eq!(in_background_for(7, of()).await, behind(7));
        let deadline = Deadline::of(std::time::Duration::from_secs(1));
        deadline.charge_to(8);
        assert_eq!(in_background_for(7, deadline.over(of())).await, request(8));
    }

    #[test]
    fn running_writes_of_a_request_party_have_a_limit() {
        let mut turns = Turns::new(2);
        for item in ["loud 1", "loud 2", "loud 3"] {
            turns.push(request(1), item);
        }
        assert_eq!(turns.startable(), 2);
        assert_eq!(
            [turns.pop(), turns.pop()].map(|taken| taken.map(|(_, item)| item)),
            [Some("loud 1"), Some("loud 2")]
        );
        assert!(turns.pop().is_none() && turns.front().is_none());
        turns.push(request(2), "quiet 1");
        assert_eq!(turns.pop(), Some((request(2), "quiet 1")));
        turns.done(request(1));
        assert_eq!(turns.pop(), Some((request(1), "loud 3")));
        turns.put_back(request(1), "loud 3");
        assert_eq!((turns.waiting(), turns.startable()), (1, 0));
        turns.done(request(1));
        assert_eq!(turns.extract(|item| item.starts_with("loud")), ["loud 3"]);
        turns.done(request(1));
        turns.done(request(2));
        assert_eq!((turns.waiting(), turns.startable(), turns.queues.len()), (0, 0, 0));
    }
}
