//! Bounds on outbound calls.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// Bounds on outbound calls: to EHRs, token endpoints and all other hosts that tenants configure.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Networks that calls may reach although they are not globally routable.
    pub allow: Vec<IpNet>,
    /// Whether http without TLS is allowed.
    pub plain_http: bool,
    /// Time limit of one call, retries and token requests included.
    pub time: Duration,
    /// Largest answer that is read, bytes.
    pub body_bytes: usize,
    /// Concurrent calls of one integration, on one replica.
    pub concurrency: usize,
    /// Integration queues that are served at once, on one replica.
    pub lanes: usize,
    /// The time after its last report at which a call without an end counts as unfinished.
    pub unfinished_after: Duration,
    /// Concurrent endpoint tests and health checks of all workspaces, on one replica.
    pub calls: u32,
    /// Memory for answers in work, bytes, over all workspaces. One workspace may use a quarter of it.
    pub memory: usize,
    /// Name servers that replace the system's.
    pub name_servers: Vec<SocketAddr>,
    /// The scheme and the host of Twilio's API.
    pub twilio_url: String,
    /// Whether the calls of workspaces with a Twilio account are compared with Twilio's list every night.
    pub twilio_reconciliation: bool,
    /// PEM file of certificate authorities that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            plain_http: false,
            time: Duration::from_secs(10),
            body_bytes: 1 << 20,
            concurrency: 8,
            lanes: 256,
            unfinished_after: Duration::from_hours(6),
            calls: 256,
            memory: 256 << 20,
            name_servers: Vec::new(),
            twilio_url: "https://api.twilio.com".to_owned(),
            twilio_reconciliation: true,
            ca_file: None,
        }
    }
}
