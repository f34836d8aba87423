//! The addresses that may be connected to. Tenants choose the URLs that this crate calls. So an address
//! inside the operator's network must be one that the operator allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Whether `address` may be connected to: globally routable, or inside a network that the operator allows.
///
/// An IPv6 address that carries an IPv4 one is judged by the IPv4 address, because its packets go there. This
/// concerns mapped addresses (RFC 4291 section 2.5.5.2) and NAT64 (RFC 6052 section 2.1).
pub fn allowed(address: IpAddr, allow: &[IpNet]) -> bool {
    let carried = carried(address);
    allow.iter().any(|network| network.contains(&address) || network.contains(&carried)) || is_global(carried)
}

/// The final address of packets that are sent to `address`.
fn carried(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => match (six.to_ipv4_mapped(), six.segments()) {
            (Some(four), _) => IpAddr::V4(four),
            (None, [0x64, 0xff9b, 0, 0, 0, 0, high, low]) => {
                IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
            }
            _ => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// Whether an address belongs to this machine: only such addresses can be bound.
pub fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback() || std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Whether an address is globally routable, by the IANA special-purpose registries (RFC 6890 and its updates).
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_global_v4(four),
        IpAddr::V6(six) => is_global_v6(six),
    }
}

fn is_global_v4(four: Ipv4Addr) -> bool {
    let special = match four.octets() {
        // In this order: this network, private use, loopback, multicast with reserved and broadcast; shared
        // address space (RFC 6598), the inner networks of carriers and clouds; link local; private use;
        // protocol assignments with documentation; the former 6to4 relays; private use; benchmarking;
        // documentation.
        [0 | 10 | 127 | 224..=255, ..]
        | [100, 64..=127, ..]
        | [169, 254, ..]
        | [172, 16..=31, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [192, 168, ..]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        // Public addresses that serve clouds inside their own networks: Azure's host endpoint for metadata,
        // DHCP and DNS; IBM Cloud's service endpoints. The metadata services of other clouds have special
        // addresses.
        | [168, 63, 129, 16]
        | [161, 26, ..]
        | [166, 8..=11, ..] => true,
        _ => false,
    };
    !special
}

fn is_global_v6(six: Ipv6Addr) -> bool {
    match six.segments() {
        // Protocol assignments (Teredo and ORCHID among them), documentation, 6to4 (which carries any IPv4 address).
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Only 2000::/3 has been given out for global use (RFC 4291 section 2.4).
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_open_internet_pass() {
        for inner in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.254",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "64:ff9b::a83f:8110",
            "161.26.0.10",
            "166.9.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:100.64.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::6440:1",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:0a00:1::",
            "3fff::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(!allowed(inner.parse().unwrap(), &[]), "{inner}");
        }
        for outer in [
            "1.1.1.1",
            "161.25.0.1",
            "166.12.0.1",
            "168.63.129.15",
            "168.63.129.17",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450::1",
        ] {
            assert!(allowed(outer.parse().unwrap(), &[]), "{outer}");
        }
    }

    #[test]
    fn the_operator_opens_networks_by_name_and_no_more() {
        let allow: Vec<IpNet> = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/16".parse().unwrap()];
        for open in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00::7"] {
            assert!(allowed(open.parse().unwrap(), &allow), "{open}");
        }
        for closed in ["10.2.0.1", "::ffff:10.2.0.1", "fd01::1", "127.0.0.1"] {
            assert!(!allowed(closed.parse().unwrap(), &allow), "{closed}");
        }
    }
}
