//! Bounds on what one client may cost.

use std::time::Duration;

/// Bounds on connections and on the requests of one connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request head (request line and headers), bytes; beyond it 431.
    pub header_bytes: usize,
    /// Longest time from request head to answer that the product takes. An HTTP/2 connection may be silent that long.
    pub request_time: Duration,
    /// Longest time a client may take to send a request head, idle keep-alive included.
    pub header_time: Duration,
    /// Longest time a write to a client may make no progress.
    pub write_idle: Duration,
    /// Upper bound of concurrent connections; beyond it 503.
    pub connections: usize,
    /// Concurrent connections of one client address (the peer; IPv6 by /64). Trusted proxies are exempt.
    pub connections_per_address: usize,
    /// How long a graceful shutdown waits for accepted requests.
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
