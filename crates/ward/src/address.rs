//! The address of a client, and the part of it that counts as one client.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that rates count. One customer's IPv6 addresses share a /64, so that is counted.
pub fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The client's address: the peer, or behind a trusted proxy the right-most `x-forwarded-for` entry that is
/// not a trusted proxy. An entry that is not an address ends the search, because a trusted proxy did not
/// write the entries to its left.
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

/// Parses `1.2.3.4`, `1.2.3.4:56`, `::1`, `[::1]` or `[::1]:56`.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let address = entry
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<std::net::SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| entry.trim_start_matches('[').trim_end_matches(']').parse());
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn ipv6_neighbours_share_a_bucket() {
        let of = |text: &str| bucket(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
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
