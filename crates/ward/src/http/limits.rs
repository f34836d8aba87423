//! Rates per client address, and which address that is.
//!
//! A rate is a token bucket kept as one number: the time at which the bucket is full again (the generic cell rate
//! algorithm). It can be looked at without a charge, which no published limiter offers: whether an address may still
//! fail is asked before its credential is looked up, and only a refused one is charged. So however many requests with
//! good keys are under way at once, they cost their address nothing; in turn as many bad ones as an address has under way
//! at one moment can pass before the first of them is charged.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use quick_cache::sync::Cache;

use crate::config::{Rate, Rates};

const NANOS: u64 = 1_000_000_000;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The rates of one server. Every replica counts for itself.
pub struct AddressRates {
    /// Refused credentials.
    pub failed_credentials: AddressRate,
    /// Bootstrap calls.
    pub bootstrap: AddressRate,
    /// Claims.
    pub claims: AddressRate,
}

impl AddressRates {
    /// The configured rates; `None` when they are off.
    pub fn new(rates: &Rates) -> Option<Self> {
        rates.enforced.then(|| Self {
            failed_credentials: AddressRate::new(rates.failed_credentials, rates.addresses),
            bootstrap: AddressRate::new(rates.bootstrap, rates.addresses),
            claims: AddressRate::new(rates.claims, rates.addresses),
        })
    }
}

/// One rate, counted per address in a table of bounded size.
pub struct AddressRate {
    burst: u64,
    /// Nanoseconds in which one token comes back.
    interval: u64,
    started: Instant,
    full_again: Cache<IpAddr, Arc<AtomicU64>>,
}

/// What is left of a rate for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateState {
    limit: u64,
    remaining: u64,
    /// Seconds until a refused client may come again, or until the bucket is full.
    pub reset_seconds: u64,
}

impl RateState {
    /// Writes `x-ratelimit-limit`, `-remaining` and `-reset` (seconds).
    pub fn write_to(self, headers: &mut HeaderMap) {
        headers.insert(HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from(self.limit));
        headers.insert(HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from(self.remaining));
        headers.insert(HeaderName::from_static("x-ratelimit-reset"), HeaderValue::from(self.reset_seconds));
    }
}

impl AddressRate {
    fn new(rate: Rate, addresses: usize) -> Self {
        Self {
            burst: u64::from(rate.burst.max(1)),
            interval: 60 * NANOS / u64::from(rate.per_minute.max(1)),
            started: Instant::now(),
            full_again: Cache::new(addresses.max(1)),
        }
    }

    /// Takes one token of this address, or says how long to wait for one.
    pub fn charge(&self, address: IpAddr) -> Result<RateState, RateState> {
        self.charge_at(address, self.elapsed())
    }

    fn charge_at(&self, address: IpAddr, now: u64) -> Result<RateState, RateState> {
        let capacity = self.burst * self.interval;
        let cell = self.cell(address);
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

    /// Says how long to wait when nothing is left of this address's tokens; takes none.
    pub fn check(&self, address: IpAddr) -> Result<(), RateState> {
        self.check_at(address, self.elapsed())
    }

    fn check_at(&self, address: IpAddr, now: u64) -> Result<(), RateState> {
        // Most addresses have never failed, and leave nothing in the table.
        let Some(cell) = self.full_again.get(&bucket(address)) else { return Ok(()) };
        let full_again = cell.load(Ordering::Acquire);
        let over = (full_again.max(now) + self.interval - now).checked_sub(self.burst * self.interval);
        match over {
            Some(wait @ 1..) => Err(self.exhausted(wait)),
            Some(0) | None => Ok(()),
        }
    }

    const fn exhausted(&self, wait: u64) -> RateState {
        let seconds = wait.div_ceil(NANOS);
        RateState { limit: self.burst, remaining: 0, reset_seconds: if seconds == 0 { 1 } else { seconds } }
    }

    fn cell(&self, address: IpAddr) -> Arc<AtomicU64> {
        let made = self
            .full_again
            .get_or_insert_with(&bucket(address), || Ok::<_, std::convert::Infallible>(Arc::default()));
        match made {
            Ok(cell) => cell,
            Err(never) => match never {},
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 4)
    }
}

/// One customer's IPv6 addresses share a /64, so that is what is counted.
pub fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The client's address: the peer, or, when the peer is a trusted proxy, the right-most `x-forwarded-for` entry that is
/// not one. An entry that is no address ends the search: what stands left of it was not written by a trusted proxy.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer.to_canonical();
    if trusted.is_empty() {
        return client;
    }
    for line in headers.get_all(FORWARDED_FOR).iter().rev() {
        let Ok(line) = line.to_str() else { return client };
        for entry in line.rsplit(',') {
            if !is_trusted(&client) {
                return client;
            }
            let Some(address) = parse_entry(entry.trim()) else { return client };
            client = address;
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:56`, `::1`, `[::1]` or `[::1]:56`.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let address = entry
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<std::net::SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| entry.trim_start_matches('[').trim_end_matches(']').parse());
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(burst: u32, per_minute: u32) -> AddressRate {
        AddressRate::new(Rate { burst, per_minute }, 100)
    }

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_burst_then_a_refill() {
        let rate = rate(3, 60);
        for left in [2, 1, 0] {
            assert_eq!(rate.charge_at(ONE, 0).unwrap().remaining, left);
        }
        assert_eq!(rate.charge_at(ONE, 0).unwrap_err().reset_seconds, 1);
        assert!(rate.charge_at(OTHER, 0).is_ok());
        assert!(rate.charge_at(ONE, NANOS).is_ok());
        assert!(rate.charge_at(ONE, NANOS).is_err());
        for _ in 0..3 {
            assert!(rate.charge_at(ONE, 100 * NANOS).is_ok());
        }
        assert!(rate.charge_at(ONE, 100 * NANOS).is_err());
    }

    #[test]
    fn looking_costs_nothing() {
        let rate = rate(2, 60);
        for _ in 0..10 {
            assert!(rate.check_at(ONE, 5).is_ok());
        }
        for left in [1, 0] {
            assert_eq!(rate.charge_at(ONE, 5).unwrap().remaining, left);
        }
        assert_eq!(rate.check_at(ONE, 5), rate.charge_at(ONE, 5).map(|_| ()));
        assert!(rate.check_at(OTHER, 5).is_ok());
        assert!(rate.check_at(ONE, 5 + NANOS).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let rate = rate(1, 1);
        for last in 0..10_000_u32 {
            let _ = rate.charge_at(IpAddr::from(last.to_be_bytes()), 0);
        }
        assert!(rate.full_again.len() <= 100, "{}", rate.full_again.len());
    }

    #[test]
    fn ipv6_neighbours_share_a_bucket() {
        let rate = rate(1, 1);
        assert!(rate.charge_at("2001:db8:1:2::1".parse().unwrap(), 0).is_ok());
        assert!(rate.charge_at("2001:db8:1:2:ffff::9".parse().unwrap(), 0).is_err());
        assert!(rate.charge_at("2001:db8:1:3::1".parse().unwrap(), 0).is_ok());
        assert_eq!(bucket("::ffff:192.0.2.1".parse().unwrap()), ONE);
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, HeaderValue::from_static(value));
            headers
        };
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(client_address(OTHER, &with("192.0.2.1"), &trusted), OTHER);
        assert_eq!(client_address(proxy, &with("192.0.2.1"), &trusted), ONE);
        assert_eq!(client_address(proxy, &with("192.0.2.1"), &[]), proxy);
        assert_eq!(client_address(proxy, &with("203.0.113.9, 192.0.2.1, 10.1.1.1"), &trusted), ONE);
        assert_eq!(client_address(proxy, &with("192.0.2.1:443"), &trusted), ONE);
        assert_eq!(client_address(proxy, &with("spoofed"), &trusted), proxy);
        assert_eq!(client_address(proxy, &HeaderMap::new(), &trusted), proxy);
    }
}
