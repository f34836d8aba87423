//! Rates per client address and workspace, and the determination of a client's address.
//!
//! A rate is a token bucket, stored as the time at which it will be full again (generic cell rate
//! algorithm).
//!
//! A credential is verified first. Only a refused one is charged: to its address and, if the path names
//! one, to the workspace. So a valid credential works whatever else comes from its address. Once the tokens
//! of an address or workspace are used up, its refused credentials get 429. Its look-ups then go through a
//! small share of their own ([`ClientRates::look_up_share`]). A credential that was valid lately needs no share
//! ([`ClientRates::was_valid`]).

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::address::bucket;
use crate::config::{Rate, Rates};
use crate::context::RateState;
use crate::ids::WorkspaceId;
use crate::shares::{self, Full, Holder, Share, Shares};

const NANOS: u64 = 1_000_000_000;

/// Look-ups in progress for addresses and workspaces that have used up their failures. A waiting request
/// costs no more than its connection, so the queue has room for every request that one address can have
/// open.
const LOOK_UPS: shares::Limits =
    shares::Limits { total: 8, each: 2, first: 2, beyond: 8, waiting_each: 65_536 };

/// The SHA-256 of a credential, by which this server remembers it.
pub type Mark = [u8; 32];
/// Credentials whose last valid use is kept.
const VALID_KEPT: usize = 65_536;
/// How long a valid use counts.
const VALID_FOR: Duration = Duration::from_hours(1);

/// The rates of one server. Every replica counts for itself.
pub struct ClientRates {
    failed_by_address: KeyedRate<IpAddr>,
    failed_by_workspace: KeyedRate<WorkspaceId>,
    bootstrap: KeyedRate<IpAddr>,
    claims: KeyedRate<IpAddr>,
    key_sets: KeyedRate<IpAddr>,
    look_ups: Shares,
    /// The last valid use of each credential, for the most recent ones.
    valid: Cache<Mark, Instant>,
}

impl ClientRates {
    /// The configured rates; `None` if they are off.
    pub fn new(rates: &Rates) -> Option<Self> {
        rates.enforced.then(|| Self {
            failed_by_address: KeyedRate::new(rates.failed_credentials, rates.addresses),
            failed_by_workspace: KeyedRate::new(rates.failed_in_workspace, rates.addresses),
            bootstrap: KeyedRate::new(rates.bootstrap, rates.addresses),
            claims: KeyedRate::new(rates.claims, rates.addresses),
            key_sets: KeyedRate::new(rates.key_sets, rates.addresses),
            look_ups: Shares::new("failing_look_ups", LOOK_UPS),
            valid: Cache::new(VALID_KEPT),
        })
    }

    /// Notes whether a credential was valid.
    pub fn note(&self, credential: Mark, valid: bool) {
        if !valid {
            self.valid.remove(&credential);
        } else if !self.was_valid(&credential) {
            self.valid.insert(credential, Instant::now());
        }
    }

    /// Whether this server has seen the credential valid in the last hour, and not refused since. No client can make
    /// such a credential up, so its look-up waits behind no failing client.
    pub fn was_valid(&self, credential: &Mark) -> bool {
        self.valid.get(credential).is_some_and(|seen| seen.elapsed() < VALID_FOR)
    }

    /// Charges a refused credential to its address and to the workspace that it was presented for.
    ///
    /// # Errors
    /// The state of the exhausted rate.
    pub fn charge_refused(
        &self,
        address: IpAddr,
        workspace: Option<WorkspaceId>,
    ) -> Result<RateState, RateState> {
        let by_workspace = workspace.map_or(Ok(()), |id| self.failed_by_workspace.charge(&id).map(drop));
        let by_address = self.failed_by_address.charge(&bucket(address))?;
        by_workspace.map(|()| by_address)
    }

    /// Charges the creation of an unclaimed workspace.
    ///
    /// # Errors
    /// The state of the exhausted rate.
    pub fn charge_bootstrap(&self, address: IpAddr) -> Result<RateState, RateState> {
        self.bootstrap.charge(&bucket(address))
    }

    /// Charges a claim, whether it succeeded or not.
    ///
    /// # Errors
    /// The state of the exhausted rate.
    pub fn charge_claim(&self, address: IpAddr) -> Result<RateState, RateState> {
        self.claims.charge(&bucket(address))
    }

    /// Charges the request of a public JWK set.
    ///
    /// # Errors
    /// The state of the exhausted rate.
    pub fn charge_key_set(&self, address: IpAddr) -> Result<RateState, RateState> {
        self.key_sets.charge(&bucket(address))
    }

    /// Whether the next failed claim of this address gets 429.
    pub fn claims_are_used_up(&self, address: IpAddr) -> bool {
        self.claims.is_used_up(&bucket(address))
    }

    /// Takes a share of the look-ups of failing clients. `None` for a client with failures left, which
    /// needs no share.
    ///
    /// # Errors
    /// [`Full`] if more requests of this client wait than one client can have open.
    pub async fn look_up_share(
        &self,
        address: IpAddr,
        workspace: Option<WorkspaceId>,
    ) -> Result<Option<Share>, Full> {
        let address = bucket(address);
        // The workspace comes first, because many tenants share addresses such as Twilio's, which must
        // serve the others. The address is a part of it, because the workspace's own clients come from other ones.
        let failing = workspace.filter(|id| self.failed_by_workspace.is_used_up(id));
        let failing = failing.map(|id| Holder::Client(id, address));
        let failing = failing
            .or_else(|| self.failed_by_address.is_used_up(&address).then_some(Holder::Address(address)));
        match failing {
            Some(holder) => self.look_ups.take(holder, 1).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes a share of the look-ups of failing claims.
    ///
    /// # Errors
    /// As [`Self::look_up_share`].
    pub async fn claim_share(&self, address: IpAddr) -> Result<Share, Full> {
        self.look_ups.take(Holder::Address(bucket(address)), 1).await
    }
}

/// One rate, counted per key in a table of bounded size.
struct KeyedRate<K> {
    burst: u64,
    /// Nanoseconds after which one token is refilled.
    interval: u64,
    started: Instant,
    full_again: Cache<K, Arc<AtomicU64>>,
}

impl<K: Hash + Eq + Clone> KeyedRate<K> {
    fn new(rate: Rate, keys: usize) -> Self {
        Self {
            burst: u64::from(rate.burst.max(1)),
            interval: 60 * NANOS / u64::from(rate.per_minute.max(1)),
            started: Instant::now(),
            full_again: Cache::new(keys.max(1)),
        }
    }

    /// Takes one token of this key; the error has the time to wait for one.
    fn charge(&self, key: &K) -> Result<RateState, RateState> {
        self.charge_at(key, self.elapsed())
    }

    fn charge_at(&self, key: &K, now: u64) -> Result<RateState, RateState> {
        let capacity = self.burst * self.interval;
        let cell = self.cell(key);
        let taken = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |full_again| {
            let next = full_again.max(now) + self.interval;
            (next - now <= capacity).then_some(next)
        });
        match taken {
            Ok(before) => {
                let used = before.max(now) + self.interval - now;
                Ok(RateState {
                    limit: self.burst,
                    remaining: (capacity - used) / self.interval,
                    reset_seconds: used.div_ceil(NANOS),
                })
            }
            Err(full_again) => Err(self.exhausted(full_again + self.interval - now - capacity)),
        }
    }

    /// Whether this key has no tokens left. It takes none.
    fn is_used_up(&self, key: &K) -> bool {
        self.is_used_up_at(key, self.elapsed())
    }

    fn is_used_up_at(&self, key: &K, now: u64) -> bool {
        // Most keys were never charged and have no entry in the table.
        let Some(cell) = self.full_again.get(key) else { return false };
        let full_again = cell.load(Ordering::Acquire);
        full_again.max(now) + self.interval - now > self.burst * self.interval
    }

    const fn exhausted(&self, wait: u64) -> RateState {
        let seconds = wait.div_ceil(NANOS);
        RateState { limit: self.burst, remaining: 0, reset_seconds: if seconds == 0 { 1 } else { seconds } }
    }

    fn cell(&self, key: &K) -> Arc<AtomicU64> {
        let made =
            self.full_again.get_or_insert_with(key, || Ok::<_, std::convert::Infallible>(Arc::default()));
        match made {
            Ok(cell) => cell,
            Err(never) => match never {},
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(burst: u32, per_minute: u32) -> KeyedRate<IpAddr> {
        KeyedRate::new(Rate { burst, per_minute }, 100)
    }

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_burst_then_a_refill() {
        let rate = rate(3, 60);
        for left in [2, 1, 0] {
            assert_eq!(rate.charge_at(&ONE, 0).unwrap().remaining, left);
        }
        assert_eq!(rate.charge_at(&ONE, 0).unwrap_err().reset_seconds, 1);
        assert!(rate.charge_at(&OTHER, 0).is_ok());
        assert!(rate.charge_at(&ONE, NANOS).is_ok());
        assert!(rate.charge_at(&ONE, NANOS).is_err());
        for _ in 0..3 {
            assert!(rate.charge_at(&ONE, 100 * NANOS).is_ok());
        }
        assert!(rate.charge_at(&ONE, 100 * NANOS).is_err());
    }

    #[test]
    fn looking_costs_nothing() {
        let rate = rate(2, 60);
        for _ in 0..10 {
            assert!(!rate.is_used_up_at(&ONE, 5));
        }
        for left in [1, 0] {
            assert_eq!(rate.charge_at(&ONE, 5).unwrap().remaining, left);
        }
        assert!(rate.is_used_up_at(&ONE, 5) && rate.charge_at(&ONE, 5).is_err());
        assert!(!rate.is_used_up_at(&OTHER, 5));
        assert!(!rate.is_used_up_at(&ONE, 5 + NANOS));
    }

    #[test]
    fn the_table_is_bounded() {
        let rate = rate(1, 1);
        for last in 0..10_000_u32 {
            let _ = rate.charge_at(&IpAddr::from(last.to_be_bytes()), 0);
        }
        assert!(rate.full_again.len() <= 100, "{}", rate.full_again.len());
    }
}
