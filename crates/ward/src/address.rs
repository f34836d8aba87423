//! The address of a client, the part of it that counts as one client, and the one reader of IP ranges.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

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

/// Whether an address, in either form of IPv4, is in one of these ranges.
pub fn is_within(address: IpAddr, ranges: &[IpNet]) -> bool {
    let address = address.to_canonical();
    ranges.iter().any(|net| net.contains(&address))
}

/// The client's address: the peer, or behind a trusted proxy the right-most `x-forwarded-for` entry that is
/// not a trusted proxy. An entry that is not an address ends the search, because a trusted proxy did not
/// write the entries to its left.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| is_within(*address, trusted);
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

/// Parses a range, or an address, which is a range of one. Settings and requests share it, so that no text is a range in one
/// place and none in another. An IPv4-mapped range becomes the IPv4 range. Bits beyond the prefix are refused: the text could
/// mean a single address or the whole range.
///
/// # Errors
/// The reason why the text is no range.
pub fn range(text: &str) -> Result<IpNet, String> {
    let net = parsed(text).ok_or_else(|| {
        "Not an IP range. It must be like 192.0.2.0/24 or 2001:db8::/32, or a single address".to_owned()
    })?;
    let net = without_mapping(net);
    if net.addr() == net.network() {
        return Ok(net);
    }
    Err(format!(
        "The address has bits beyond the prefix. Write {} for the range, or {} for the address",
        net.trunc(),
        net.addr()
    ))
}

/// The standard library parses the address, because it refuses `010.0.0.0`, which some programs read as octal.
fn parsed(text: &str) -> Option<IpNet> {
    let Some((address, prefix)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix = prefix.parse().ok().filter(|_| digits)?;
    IpNet::new(address.parse().ok()?, prefix).ok()
}

/// The range of IPv4 addresses that an IPv4-mapped range of IPv6 stands for (RFC 4291, section 2.5.5.2).
fn without_mapping(net: IpNet) -> IpNet {
    let mapped = match net {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(net, IpNet::V4)
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
