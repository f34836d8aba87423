//! The count of connections, in total and per client network, and the choice of the one that makes room.
//!
//! If all connections are in use, a new client does not wait until an idle connection times out. The
//! network with the most connections gives up the one that has waited longest for its client, if the new
//! client's network has fewer. So a few silent addresses cannot keep others out.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use ipnet::IpNet;
use metrics::{Gauge, counter, gauge};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ServeOptions;

/// Networks that are searched for a connection to give up, the fullest first.
const NETWORKS_LOOKED_AT: usize = 8;

/// The unit that counts as one client: an IPv4 address, or an IPv6 /64, which one subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// One IPv4 address, which counts as one client.
    V4(Ipv4Addr),
    /// The upper 64 bits of an IPv6 address.
    V6(u64),
}

impl Network {
    /// The network of `address`. IPv4 written as IPv6 counts as IPv4.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// The reason why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionLimit {
    /// The server has reached its limit of connections.
    Server,
    /// The client's network has reached its limit.
    Network,
}

impl ConnectionLimit {
    /// The value of the metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Server => "total",
            Self::Network => "address",
        }
    }
}

/// The state of a connection that decides whether it may be given up.
pub(crate) struct Occupancy {
    started: Instant,
    /// The number of requests that are being served.
    in_flight: AtomicUsize,
    /// The number of those that wait for more of their body.
    waiting: AtomicUsize,
    /// The last activity of the client, in nanoseconds after `started`.
    last: AtomicU64,
    given_up: Notify,
}

impl Occupancy {
    fn new(started: Instant) -> Arc<Self> {
        let place = Self {
            started,
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            given_up: Notify::new(),
        };
        place.touch();
        Arc::new(place)
    }

    fn touch(&self) {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(nanos, Ordering::Relaxed);
    }

    /// Marks a request in progress, until its answer is ready.
    pub(crate) fn serving(self: &Arc<Self>) -> Activity {
        Activity::new(self, |place| &place.in_flight)
    }

    /// Marks a wait for a part of a request's body.
    pub(crate) fn waiting(self: &Arc<Self>) -> Activity {
        Activity::new(self, |place| &place.waiting)
    }

    /// Whether all requests on the connection, if any, wait for the client.
    fn waits_for_client(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.in_flight.load(Ordering::Relaxed)
    }

    /// Resolves when the connection must make room for another.
    pub(crate) async fn given_up(&self) {
        self.given_up.notified().await;
    }
}

/// An activity of a connection, until this is dropped.
pub(crate) struct Activity {
    place: Arc<Occupancy>,
    counter: fn(&Occupancy) -> &AtomicUsize,
}

impl Activity {
    fn new(place: &Arc<Occupancy>, counter: fn(&Occupancy) -> &AtomicUsize) -> Self {
        counter(place).fetch_add(1, Ordering::Relaxed);
        place.touch();
        Self { place: Arc::clone(place), counter }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.place.touch();
        (self.counter)(&self.place).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The open connections of one listener.
pub(crate) struct Admission {
    most: usize,
    most_per_network: usize,
    exempt: Vec<IpNet>,
    started: Instant,
    open: Mutex<OpenConnections>,
    gauge: Gauge,
}

#[derive(Default)]
struct OpenConnections {
    total: usize,
    next_id: u64,
    by_network: HashMap<Network, HashMap<u64, Arc<Occupancy>>>,
    /// The networks, sorted by their number of connections.
    by_count: BTreeSet<(usize, Network)>,
}

impl OpenConnections {
    fn count(&self, network: Network) -> usize {
        self.by_network.get(&network).map_or(0, HashMap::len)
    }

    fn add(&mut self, network: Network, place: Arc<Occupancy>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let places = self.by_network.entry(network).or_default();
        self.by_count.remove(&(places.len(), network));
        places.insert(id, place);
        self.by_count.insert((places.len(), network));
        id
    }

    /// Removes a connection; `false` if it was already given up.
    fn remove(&mut self, network: Network, id: u64) -> bool {
        let Some(places) = self.by_network.get_mut(&network) else { return false };
        let before = places.len();
        if places.remove(&id).is_none() {
            return false;
        }
        self.by_count.remove(&(before, network));
        // An entry is removed with its last connection, so the tables are never larger than the number of
        // connections.
        if places.is_empty() {
            self.by_network.remove(&network);
        } else {
            self.by_count.insert((before - 1, network));
        }
        true
    }

    /// Gives up one connection of a network that has at least two more than `fewer`. Returns `false` if
    /// none of them waits for its client.
    fn make_room(&mut self, fewer: usize) -> bool {
        let fullest = self.by_count.iter().rev().take_while(|(count, _)| *count > fewer + 1);
        let found = fullest.take(NETWORKS_LOOKED_AT).find_map(|(_, network)| {
            let places = self.by_network.get(network)?;
            let waiting = places.iter().filter(|(_, place)| place.waits_for_client());
            let (id, _) = waiting.min_by_key(|(_, place)| place.last.load(Ordering::Relaxed))?;
            Some((*network, *id))
        });
        let Some((network, id)) = found else { return false };
        if let Some(place) = self.by_network.get(&network).and_then(|places| places.get(&id)) {
            place.given_up.notify_one();
        }
        self.total -= 1;
        self.remove(network, id)
    }
}

impl Admission {
    pub(crate) fn new(options: &ServeOptions) -> Self {
        Self {
            most: options.limits.connections,
            most_per_network: options.limits.connections_per_address,
            exempt: options.trusted_proxies.clone(),
            started: Instant::now(),
            open: Mutex::default(),
            gauge: gauge!("ward_connections_open"),
        }
    }

    /// Counts a connection from `address` for as long as the result lives.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<AdmittedConnection, ConnectionLimit> {
        let network = if self.exempt.iter().any(|net| net.contains(&address)) {
            None
        } else {
            Some(Network::of(address))
        };
        let mut open = self.open.lock();
        let of_network = network.map_or(0, |network| open.count(network));
        if network.is_some() && of_network >= self.most_per_network {
            return Err(ConnectionLimit::Network);
        }
        if open.total >= self.most {
            if !open.make_room(of_network) {
                return Err(ConnectionLimit::Server);
            }
            counter!("ward_connections_given_up_total").increment(1);
        }
        let place = Occupancy::new(self.started);
        let counted = network.map(|network| (network, open.add(network, Arc::clone(&place))));
        open.total += 1;
        self.gauge.set(u32::try_from(open.total).map_or(f64::MAX, f64::from));
        Ok(AdmittedConnection { of: Arc::clone(self), place, counted })
    }
}

/// One counted connection; dropping it ends the count.
pub(crate) struct AdmittedConnection {
    of: Arc<Admission>,
    place: Arc<Occupancy>,
    /// The network and the id; `None` if exempt from the count per network.
    counted: Option<(Network, u64)>,
}

impl AdmittedConnection {
    /// The state to which the connection reports its activity.
    pub(crate) fn place(&self) -> &Arc<Occupancy> {
        &self.place
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        if self.counted.is_none_or(|(network, id)| open.remove(network, id)) {
            open.total -= 1;
        }
        self.of.gauge.set(u32::try_from(open.total).map_or(f64::MAX, f64::from));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::Limits;

    fn admission(connections: usize, connections_per_address: usize, proxies: &[&str]) -> Arc<Admission> {
        Arc::new(Admission::new(&ServeOptions {
            limits: Limits { connections, connections_per_address, ..Limits::default() },
            tls: None,
            trusted_proxies: proxies.iter().map(|net| net.parse().unwrap()).collect(),
            fields: http::HeaderMap::new(),
            early_fields: http::HeaderMap::new(),
        }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_given_up(admitted: &AdmittedConnection) -> bool {
        admitted.place.given_up().now_or_never().is_some()
    }

    #[test]
    fn one_address_is_bounded_and_places_come_back() {
        let admission = admission(10, 2, &[]);
        let first = admission.admit(ip("192.0.2.1")).ok();
        let _second = admission.admit(ip("::ffff:192.0.2.1")).ok().unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(ConnectionLimit::Network));
        assert!(admission.admit(ip("192.0.2.2")).is_ok());
        drop(first);
        assert!(admission.admit(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn ipv6_counts_by_64() {
        let admission = admission(10, 1, &[]);
        let _one = admission.admit(ip("2001:db8:0:1::1")).ok().unwrap();
        assert_eq!(admission.admit(ip("2001:db8:0:1:ffff::2")).err(), Some(ConnectionLimit::Network));
        assert!(admission.admit(ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn a_trusted_proxy_has_only_the_total() {
        let admission = admission(3, 1, &["10.0.0.0/8"]);
        let held: Vec<_> = (0..3).map(|_| admission.admit(ip("10.1.2.3")).ok().unwrap()).collect();
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(ConnectionLimit::Server));
        drop(held);
        assert!(admission.open.lock().by_network.is_empty());
        assert_eq!(admission.open.lock().total, 0);
    }

    #[test]
    fn silent_connections_of_full_addresses_make_room_for_others() {
        let admission = admission(8, 4, &[]);
        let admit = |address: &str| admission.admit(ip(address)).ok().unwrap();
        let one: Vec<_> = (0..4).map(|_| admit("192.0.2.1")).collect();
        let other: Vec<_> = (0..4).map(|_| admit("192.0.2.2")).collect();
        let busy = one[0].place.serving();
        let others_busy: Vec<_> = other.iter().map(|admitted| admitted.place.serving()).collect();
        let third = admit("192.0.2.3");
        assert!(!is_given_up(&one[0]), "it serves a request");
        assert!(is_given_up(&one[1]), "the one that has been silent longest");
        assert!(other.iter().all(|admitted| !is_given_up(admitted)));
        let fourth = admit("192.0.2.3");
        assert!(is_given_up(&one[2]));
        // The new client's address has one connection fewer than the fullest, which is not enough for it to
        // give one up.
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(ConnectionLimit::Server));
        let body = other[3].place.waiting();
        let fifth = admit("192.0.2.4");
        assert!(is_given_up(&other[3]), "its one request waits for its client");
        drop((busy, others_busy, body, third, fourth, fifth, one, other));
        let open = admission.open.lock();
        assert!(open.by_network.is_empty() && open.by_count.is_empty());
        assert_eq!(open.total, 0);
    }
}
