//! The bounds on the cost of one client.

use std::time::Duration;

/// Bounds on connections and on the requests of one connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request head (request line and headers), in bytes. A larger one gets 431.
    pub header_bytes: usize,
    /// The longest time that the product takes from request head to answer. An HTTP/2 connection may be
    /// silent that long.
    pub request_time: Duration,
    /// The longest time in which a client must send a request head, idle keep-alive included.
    pub header_time: Duration,
    /// The longest time in which a write to a client may make no progress.
    pub write_idle: Duration,
    /// The most concurrent connections. A further one gets 503.
    pub connections: usize,
    /// The most concurrent connections of one client address (the peer; IPv6 by /64). Trusted proxies are
    /// exempt.
    pub connections_per_address: usize,
    /// The longest time that a graceful shutdown waits for accepted requests.
    pub shutdown_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 * 1024,
            request_time: Duration::from_secs(15),
            header_time: Duration::from_secs(20),
            write_idle: Duration::from_secs(20),
            connections: 1024,
            connections_per_address: 512,
            shutdown_time: Duration::from_secs(20),
        }
    }
}
