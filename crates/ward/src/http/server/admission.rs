//! Counting connections, in total and by client network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use metrics::{Gauge, gauge};
use parking_lot::Mutex;

use super::ServeOptions;

/// What counts as one client: an IPv4 address, or an IPv6 /64, which is what one subscriber is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// One address.
    V4(Ipv4Addr),
    /// The upper 64 bits.
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

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The server has all it may have.
    Server,
    /// This client network has all it may have.
    Network,
}

impl Full {
    /// The metric's label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Server => "total",
            Self::Network => "address",
        }
    }
}

/// The open connections of one listener.
pub(super) struct Admission {
    most: usize,
    most_per_network: usize,
    exempt: Vec<IpNet>,
    open: Mutex<Open>,
    gauge: Gauge,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_network: HashMap<Network, usize>,
}

impl Admission {
    pub(super) fn new(options: &ServeOptions) -> Self {
        Self {
            most: options.limits.connections,
            most_per_network: options.limits.connections_per_address,
            exempt: options.trusted_proxies.clone(),
            open: Mutex::default(),
            gauge: gauge!("ward_connections_open"),
        }
    }

    /// Counts one more connection from `address`, for as long as the answer lives.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Full> {
        let network = if self.exempt.iter().any(|net| net.contains(&address)) {
            None
        } else {
            Some(Network::of(address))
        };
        let mut open = self.open.lock();
        if open.total >= self.most {
            return Err(Full::Server);
        }
        if let Some(network) = network {
            let count = open.by_network.entry(network).or_insert(0);
            if *count >= self.most_per_network {
                return Err(Full::Network);
            }
            *count += 1;
        }
        open.total += 1;
        self.gauge.increment(1.0);
        Ok(Admitted { of: Arc::clone(self), network })
    }
}

/// One counted connection; dropping it gives its place back.
pub(super) struct Admitted {
    of: Arc<Admission>,
    /// `None`: exempt from the count per network.
    network: Option<Network>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        open.total -= 1;
        self.of.gauge.decrement(1.0);
        // Entries go with their last connection, so the table is never larger than the number of connections.
        if let Some(network) = self.network
            && let Some(count) = open.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn admission(connections: usize, connections_per_address: usize, proxies: &[&str]) -> Arc<Admission> {
        Arc::new(Admission::new(&ServeOptions {
            limits: Limits { connections, connections_per_address, ..Limits::default() },
            tls: None,
            trusted_proxies: proxies.iter().map(|net| net.parse().unwrap()).collect(),
        }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_is_bounded_and_places_come_back() {
        let admission = admission(10, 2, &[]);
        let first = admission.admit(ip("192.0.2.1")).ok();
        let _second = admission.admit(ip("::ffff:192.0.2.1")).ok().unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(Full::Network));
        assert!(admission.admit(ip("192.0.2.2")).is_ok());
        drop(first);
        assert!(admission.admit(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn ipv6_counts_by_64() {
        let admission = admission(10, 1, &[]);
        let _one = admission.admit(ip("2001:db8:0:1::1")).ok().unwrap();
        assert_eq!(admission.admit(ip("2001:db8:0:1:ffff::2")).err(), Some(Full::Network));
        assert!(admission.admit(ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn a_trusted_proxy_has_only_the_total() {
        let admission = admission(3, 1, &["10.0.0.0/8"]);
        let held: Vec<_> = (0..3).map(|_| admission.admit(ip("10.1.2.3")).ok().unwrap()).collect();
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(Full::Server));
        drop(held);
        assert!(admission.open.lock().by_network.is_empty());
        assert_eq!(admission.open.lock().total, 0);
    }
}
