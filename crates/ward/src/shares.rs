//! A pool that all tenants share, divided so that no tenant can use it up.
//!
//! A [`Shares`] has a total number of units. One holder, a workspace or an address, may have only some of
//! them at once. Requests of one holder are served in order of arrival, and holders in turn (round robin).
//! A holder that has no unit comes before those that have some. A holder that has used up its own share
//! delays no other holder.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::ids::WorkspaceId;

/// The workspace or the client address that a share belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The workspace that the work belongs to.
    Workspace(WorkspaceId),
    /// A client's address, where the work belongs to no workspace. IPv6 addresses by /64
    /// ([`crate::address::bucket`]).
    Address(IpAddr),
    /// The requests for one workspace from one address, where neither may use up the share of the other's.
    Client(WorkspaceId, IpAddr),
}

impl Holder {
    /// A number for the holder, for pools outside this crate.
    pub const fn number(self) -> u128 {
        match self {
            Self::Workspace(id) => id.0.as_u128(),
            Self::Address(address) => bits(address),
            Self::Client(id, address) => id.0.as_u128() ^ bits(address),
        }
    }
}

const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Units in use at once, over all holders.
    pub total: u32,
    /// Units in use at once by one holder. Never more than `total`.
    pub each: u32,
    /// The first units of each holder, which it has as long as any are free.
    pub first: u32,
    /// Units that holders may have beyond their first ones, over all holders. The rest of `total` is room for holders that
    /// come later, however busy some are.
    pub beyond: u32,
    /// Requests of one holder that may wait for units.
    pub waiting_each: usize,
}

/// The holder's share is used up, and its queue of waiting requests is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this share of the pool `{pool}` is used up")]
pub struct Full {
    /// The name of the pool, shown in the error.
    pub pool: &'static str,
}

/// A pool divided by holder. Clones share the pool.
#[derive(Clone)]
pub struct Shares {
    pool: Arc<Pool>,
}

struct Pool {
    name: &'static str,
    limits: Limits,
    state: Mutex<Queues>,
    used: metrics::Gauge,
    refused: metrics::Counter,
}

/// Holders have an entry only while they use units or wait for some, so idle holders take no memory.
#[derive(Default)]
struct Queues {
    used: u32,
    /// Units in use beyond the first ones of their holders.
    beyond: u32,
    holders: HashMap<Holder, Use>,
    /// The waiting holders, in the order of their turns.
    turns: VecDeque<Holder>,
}

#[derive(Default)]
struct Use {
    used: u32,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    wanted: ShareRequest,
    granted: oneshot::Sender<Share>,
}

/// The units that a request asks for.
#[derive(Clone, Copy)]
struct ShareRequest {
    units: u32,
    /// The most that its holder may have at once.
    each: u32,
}

/// Units of a pool that are in use. Dropping it returns them.
pub struct Share {
    /// `None` once the units were returned another way.
    pool: Option<Arc<Pool>>,
    holder: Holder,
    units: u32,
}

impl Shares {
    /// A pool of this name, which labels its metrics. `each` and `total` are raised to at least 1.
    pub fn new(name: &'static str, limits: Limits) -> Self {
        let total = limits.total.max(1);
        let limits = Limits { total, each: limits.each.clamp(1, total), ..limits };
        Self {
            pool: Arc::new(Pool {
                name,
                limits,
                state: Mutex::default(),
                used: metrics::gauge!("ward_share_used", "pool" => name),
                refused: metrics::counter!("ward_share_refused_total", "pool" => name),
            }),
        }
    }

    /// The limits after the constructor's corrections.
    pub fn limits(&self) -> Limits {
        self.pool.limits
    }

    /// Units in use now, over all holders.
    pub fn used(&self) -> u32 {
        self.pool.state.lock().used
    }

    /// Units in use now by one holder.
    pub fn used_by(&self, holder: Holder) -> u32 {
        self.pool.state.lock().used_by(holder)
    }

    /// Takes units for a holder, and waits for its turn. A request for more units than one holder may have
    /// takes that maximum.
    ///
    /// # Errors
    /// [`Full`] at once if too many requests of this holder are waiting.
    pub async fn take(&self, holder: Holder, units: u32) -> Result<Share, Full> {
        self.take_of(holder, units, self.pool.limits.each).await
    }

    /// The same for a holder that may have `each` units at once, whatever the others may have.
    ///
    /// # Errors
    /// [`Full`] at once when as many requests of this holder wait as may.
    pub async fn take_of(&self, holder: Holder, units: u32, each: u32) -> Result<Share, Full> {
        let each = each.clamp(1, self.pool.limits.total);
        let wanted = ShareRequest { units: units.clamp(1, each), each };
        let granted = {
            let mut state = self.pool.state.lock();
            if state.turns.is_empty() && self.pool.fits(&state, holder, wanted) {
                return Ok(self.pool.grant(&mut state, holder, wanted.units));
            }
            let waiting = &mut state.holders.entry(holder).or_default().waiting;
            if waiting.len() >= self.pool.limits.waiting_each {
                state.forget_if_idle(holder);
                self.pool.refused.increment(1);
                return Err(self.full());
            }
            let (sender, granted) = oneshot::channel();
            waiting.push_back(Waiter { wanted, granted: sender });
            if waiting.len() == 1 {
                state.turns.push_back(holder);
            }
            self.pool.serve(&mut state);
            granted
        };
        let mut leaving = CancelledWaiter { pool: &self.pool, holder, granted: Some(granted) };
        match leaving.granted.as_mut() {
            // The sender is dropped only with the pool, which this borrows.
            Some(granted) => granted.await.map_err(|_| self.full()).inspect(|_| leaving.granted = None),
            None => Err(self.full()),
        }
    }

    /// Takes units for a holder if they are free now.
    ///
    /// # Errors
    /// [`Full`] if the units are in use, or earlier requests wait for them.
    pub fn try_take(&self, holder: Holder, units: u32) -> Result<Share, Full> {
        let each = self.pool.limits.each;
        let wanted = ShareRequest { units: units.clamp(1, each), each };
        let mut state = self.pool.state.lock();
        if state.holders.get(&holder).is_none_or(|own| own.waiting.is_empty())
            && self.pool.fits(&state, holder, wanted)
        {
            return Ok(self.pool.grant(&mut state, holder, wanted.units));
        }
        self.pool.refused.increment(1);
        Err(self.full())
    }

    fn full(&self) -> Full {
        Full { pool: self.pool.name }
    }
}

impl Pool {
    fn fits(&self, state: &Queues, holder: Holder, wanted: ShareRequest) -> bool {
        state.used + wanted.units <= self.limits.total && self.within_share(state, holder, wanted)
    }

    fn within_share(&self, state: &Queues, holder: Holder, wanted: ShareRequest) -> bool {
        let (had, has) = (state.used_by(holder), state.used_by(holder) + wanted.units);
        let more = self.beyond(has) - self.beyond(had);
        has <= wanted.each && (more == 0 || state.beyond + more <= self.limits.beyond)
    }

    /// How many of a holder's units are beyond its first ones.
    fn beyond(&self, units: u32) -> u32 {
        units.saturating_sub(self.limits.first)
    }

    fn grant(self: &Arc<Self>, state: &mut Queues, holder: Holder, units: u32) -> Share {
        let had = state.used_by(holder);
        state.used += units;
        state.beyond += self.beyond(had + units) - self.beyond(had);
        state.holders.entry(holder).or_default().used += units;
        self.used.set(f64::from(state.used));
        Share { pool: Some(self.clone()), holder, units }
    }

    fn give_back(&self, state: &mut Queues, holder: Holder, units: u32) {
        let had = state.used_by(holder);
        state.used -= units;
        state.beyond -= self.beyond(had) - self.beyond(had - units);
        if let Some(own) = state.holders.get_mut(&holder) {
            own.used -= units;
        }
        state.forget_if_idle(holder);
        self.used.set(f64::from(state.used));
    }

    /// Grants free units, one request of each waiting holder per turn.
    fn serve(self: &Arc<Self>, state: &mut Queues) {
        while let Some((turn, wanted)) = self.next_turn(state) {
            if state.used + wanted.units > self.limits.total {
                // A large request keeps its turn, because small ones of other holders could otherwise delay
                // it for ever.
                return;
            }
            let Some(holder) = state.turns.remove(turn) else { return };
            let waiter = state.holders.get_mut(&holder).and_then(|own| own.waiting.pop_front());
            if let Some(waiter) = waiter {
                let share = self.grant(state, holder, wanted.units);
                // The request was cancelled in the meantime; `Share::drop` would lock the state a second
                // time.
                if let Err(mut share) = waiter.granted.send(share) {
                    share.pool = None;
                    self.give_back(state, holder, wanted.units);
                }
            }
            if state.first_waiting(holder).is_some() {
                state.turns.push_back(holder);
            }
        }
    }

    /// The turn of the next holder: the first that has nothing, else the first one. A holder whose share is used up is passed
    /// over.
    fn next_turn(&self, state: &mut Queues) -> Option<(usize, ShareRequest)> {
        let (mut turn, mut found) = (0, None);
        while let Some(holder) = state.turns.get(turn).copied() {
            let Some(wanted) = state.first_waiting(holder) else {
                state.turns.remove(turn);
                continue;
            };
            if self.within_share(state, holder, wanted) {
                if state.used_by(holder) == 0 {
                    return Some((turn, wanted));
                }
                found = found.or(Some((turn, wanted)));
            }
            turn += 1;
        }
        found
    }
}

impl Queues {
    fn used_by(&self, holder: Holder) -> u32 {
        self.holders.get(&holder).map_or(0, |own| own.used)
    }

    /// The units that the holder's first live request waits for. Requests that were given up are dropped.
    fn first_waiting(&mut self, holder: Holder) -> Option<ShareRequest> {
        let waiting = &mut self.holders.get_mut(&holder)?.waiting;
        while waiting.front().is_some_and(|first| first.granted.is_closed()) {
            waiting.pop_front();
        }
        let wanted = waiting.front().map(|first| first.wanted);
        self.forget_if_idle(holder);
        wanted
    }

    fn forget_if_idle(&mut self, holder: Holder) {
        if self.holders.get(&holder).is_some_and(|own| own.used == 0 && own.waiting.is_empty()) {
            self.holders.remove(&holder);
        }
    }
}

impl Share {
    /// The number of units that it holds now.
    pub const fn units(&self) -> u32 {
        self.units
    }

    /// Changes the number of units. More units must be free now.
    ///
    /// # Errors
    /// [`Full`] if they are not. The share then keeps the units that it has.
    pub fn resize(&mut self, units: u32) -> Result<(), Full> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let mut state = pool.state.lock();
        if let Some(more) = units.checked_sub(self.units).filter(|more| *more > 0) {
            let wanted = ShareRequest { units: more, each: pool.limits.each };
            if !pool.fits(&state, self.holder, wanted) {
                pool.refused.increment(1);
                return Err(Full { pool: pool.name });
            }
            // The units of the new share move to this one.
            let mut moved = pool.grant(&mut state, self.holder, more);
            moved.pool = None;
        } else {
            pool.give_back(&mut state, self.holder, self.units - units);
            pool.serve(&mut state);
        }
        self.units = units;
        Ok(())
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Share").field("units", &self.units).finish_non_exhaustive()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let mut state = pool.state.lock();
            pool.give_back(&mut state, self.holder, self.units);
            pool.serve(&mut state);
        }
    }
}

/// Removes a cancelled request from its queue, so that it no longer counts as waiting.
struct CancelledWaiter<'a> {
    pool: &'a Arc<Pool>,
    holder: Holder,
    granted: Option<oneshot::Receiver<Share>>,
}

impl Drop for CancelledWaiter<'_> {
    fn drop(&mut self) {
        let Some(mut granted) = self.granted.take() else { return };
        granted.close();
        // A share that was granted just before is returned before the lock is taken.
        drop(granted);
        let mut state = self.pool.state.lock();
        if let Some(own) = state.holders.get_mut(&self.holder) {
            own.waiting.retain(|waiter| !waiter.granted.is_closed());
            if own.waiting.is_empty() {
                state.turns.retain(|turn| *turn != self.holder);
            }
        }
        state.forget_if_idle(self.holder);
        self.pool.serve(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::*;

    const ONE: Holder = Holder::Address(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const OTHER: Holder = Holder::Address(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    const THIRD: Holder = Holder::Address(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3)));

    fn pool(total: u32, each: u32) -> Shares {
        Shares::new("test", Limits { total, each, first: each, beyond: total, waiting_each: 3 })
    }

    fn waiting(pool: &Shares, holder: Holder, units: u32) -> BoxFuture<'static, Share> {
        let pool = pool.clone();
        let mut taking = async move { pool.take(holder, units).await.unwrap() }.boxed();
        assert!((&mut taking).now_or_never().is_none(), "the request should wait");
        taking
    }

    fn ready(taking: &mut BoxFuture<'static, Share>) -> Option<Share> {
        taking.now_or_never()
    }

    #[test]
    fn one_holder_never_has_more_than_its_share_and_another_is_served_beside_it() {
        let pool = pool(4, 2);
        let held = [pool.try_take(ONE, 1).unwrap(), pool.try_take(ONE, 1).unwrap()];
        assert!(pool.try_take(ONE, 1).is_err());
        let mut queued = waiting(&pool, ONE, 1);
        assert!(
            pool.take(OTHER, 2).now_or_never().unwrap().is_ok(),
            "a waiter of one holder holds up no other"
        );
        drop(held);
        assert!(ready(&mut queued).is_some());
    }

    #[test]
    fn holders_take_turns_whatever_the_length_of_their_queues() {
        let pool = pool(1, 1);
        let held = pool.try_take(THIRD, 1).unwrap();
        let mut first = waiting(&pool, ONE, 1);
        let mut second = waiting(&pool, ONE, 1);
        let mut others = waiting(&pool, OTHER, 1);
        drop(held);
        let share = ready(&mut first).expect("first come, first served");
        drop(share);
        assert!(ready(&mut second).is_none(), "it is the other holder's turn");
        drop(ready(&mut others).expect("the other holder's turn"));
        assert!(ready(&mut second).is_some());
    }

    #[test]
    fn a_full_queue_refuses_its_own_holder_alone() {
        let pool = pool(1, 1);
        let _held = pool.try_take(ONE, 1).unwrap();
        let _queue = [waiting(&pool, ONE, 1), waiting(&pool, ONE, 1), waiting(&pool, ONE, 1)];
        assert_eq!(pool.take(ONE, 1).now_or_never().unwrap().err(), Some(Full { pool: "test" }));
        drop(waiting(&pool, OTHER, 1));
    }

    #[test]
    fn a_share_grows_within_its_holders_share_only_and_frees_what_it_gives_up() {
        let pool = pool(4, 3);
        let mut share = pool.try_take(ONE, 2).unwrap();
        share.resize(3).unwrap();
        assert_eq!((pool.used(), pool.used_by(ONE)), (3, 3));
        assert!(share.resize(4).is_err());
        assert_eq!(pool.used(), 3, "a refused change changes nothing");
        let mut queued = waiting(&pool, ONE, 2);
        share.resize(1).unwrap();
        assert!(ready(&mut queued).is_some());
        drop(share);
        assert_eq!(pool.used(), 0);
    }

    fn address(number: u8) -> Holder {
        Holder::Address(IpAddr::from([198, 51, 100, number]))
    }

    #[test]
    fn busy_holders_leave_room_for_those_that_come_later() {
        let pool = Shares::new("test", Limits { total: 64, each: 16, first: 2, beyond: 32, waiting_each: 3 });
        let take_all =
            |holder| -> Vec<Share> { (0..64).map_while(|_| pool.try_take(holder, 1).ok()).collect() };
        let mut held = vec![take_all(ONE)];
        assert_eq!(held[0].len(), 16, "one alone has its whole share");
        for number in 0..14 {
            held.push(take_all(address(number)));
            assert!(held.last().is_some_and(|held| held.len() >= 2), "{number}");
            assert!(pool.take(OTHER, 1).now_or_never().is_some(), "beside {number} busy ones");
        }
        assert_eq!(pool.pool.state.lock().beyond, 32);
        drop(held);
        assert_eq!((pool.used(), pool.pool.state.lock().beyond), (0, 0));
    }

    #[test]
    fn whoever_has_nothing_comes_first() {
        let pool = Shares::new("test", Limits { total: 2, each: 2, first: 2, beyond: 2, waiting_each: 3 });
        let held = pool.try_take(ONE, 1).unwrap();
        let other = pool.try_take(OTHER, 1).unwrap();
        let mut more = waiting(&pool, ONE, 1);
        let mut first = waiting(&pool, THIRD, 1);
        drop(other);
        assert!(ready(&mut more).is_none());
        drop(ready(&mut first).expect("the place that came free"));
        assert!(ready(&mut more).is_some());
        drop(held);
    }

    #[test]
    fn a_holder_may_have_a_larger_share_than_the_others() {
        let pool = Shares::new("test", Limits { total: 8, each: 2, first: 2, beyond: 8, waiting_each: 0 });
        let held: Vec<Share> =
            (0..9).filter_map(|_| pool.take_of(ONE, 1, 5).now_or_never().and_then(Result::ok)).collect();
        assert_eq!((held.len(), pool.used_by(ONE)), (5, 5));
    }

    #[test]
    fn a_request_that_is_given_up_leaves_its_place_and_its_units() {
        let pool = pool(1, 1);
        let held = pool.try_take(ONE, 1).unwrap();
        for _ in 0..10 {
            drop(waiting(&pool, ONE, 1));
        }
        let granted = waiting(&pool, OTHER, 1);
        drop(held);
        assert_eq!(pool.used(), 1, "granted to the waiter");
        drop(granted);
        assert_eq!(pool.used(), 0, "a grant that nothing took is returned");
        assert!(pool.pool.state.lock().holders.is_empty() && pool.pool.state.lock().turns.is_empty());
    }

    #[test]
    fn a_large_request_is_not_overtaken_for_ever() {
        let pool = pool(4, 4);
        let small = pool.try_take(OTHER, 1).unwrap();
        let mut large = waiting(&pool, ONE, 4);
        let mut later = waiting(&pool, OTHER, 1);
        drop(small);
        drop(ready(&mut large).expect("all units are free"));
        assert!(ready(&mut later).is_some());
        assert!(pool.take(ONE, 100).now_or_never().unwrap().is_ok(), "more than a share is a whole share");
    }
}
