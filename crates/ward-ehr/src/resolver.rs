//! Name look-ups that hold no thread: a tenant can choose names whose servers never answer.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::Lookup;

/// The files that say how the system looks names up.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// How often Ward looks whether those files have changed.
const CHECKED_EVERY: Duration = Duration::from_secs(10);
/// How many answers are kept, and for how long at most.
const CACHE_SIZE: u64 = 4096;
const LONGEST_KEPT: Duration = Duration::from_mins(5);
/// How long a name that is not there is believed not to be.
const ABSENCE_KEPT: Duration = Duration::from_secs(10);
/// How long one name server may take to answer before another is asked.
const SERVER_TIME: Duration = Duration::from_secs(2);
/// Questions under way at once on one connection to a name server; what asks them is bounded more narrowly.
const QUESTIONS_AT_ONCE: usize = 4096;

/// Looks names up at the system's name servers, or at others, within Ward's own tasks. Answers are cached.
pub struct Resolver {
    /// Empty: the system's.
    servers: Vec<SocketAddr>,
    /// Longest time of one look-up, every server and retry included.
    time: Duration,
    state: Mutex<State>,
}

struct State {
    resolver: TokioResolver,
    /// When the system's files last changed, as far as they were looked at.
    changed: [Option<SystemTime>; 2],
    checked: Instant,
}

impl Resolver {
    /// A resolver that asks these name servers, or the system's where there are none. The hosts file decides first.
    pub fn new(servers: Vec<SocketAddr>, time: Duration) -> std::io::Result<Self> {
        let state = State { resolver: build(&servers)?, changed: changed(), checked: Instant::now() };
        Ok(Self { servers, time, state: Mutex::new(state) })
    }

    /// The resolver in force. It is made anew, with an empty cache, when the system's files have changed.
    fn current(&self) -> TokioResolver {
        let mut state = self.state.lock();
        if state.checked.elapsed() >= CHECKED_EVERY {
            state.checked = Instant::now();
            let changed = changed();
            if changed != state.changed {
                match build(&self.servers) {
                    Ok(resolver) => (state.resolver, state.changed) = (resolver, changed),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the system's resolver files; the former settings stay");
                    }
                }
            }
        }
        state.resolver.clone()
    }
}

fn changed() -> [Option<SystemTime>; 2] {
    SYSTEM_FILES.map(|file| Path::new(file).metadata().and_then(|metadata| metadata.modified()).ok())
}

fn build(servers: &[SocketAddr]) -> std::io::Result<TokioResolver> {
    let system = || match TokioResolver::builder_tokio() {
        Ok(builder) => builder,
        Err(error) => {
            tracing::warn!(%error, "cannot read /etc/resolv.conf; names are looked up at 127.0.0.1");
            asking(&[SocketAddr::from(([127, 0, 0, 1], 53))])
        }
    };
    let mut builder = if servers.is_empty() { system() } else { asking(servers) };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = options.timeout.min(SERVER_TIME);
    options.attempts = options.attempts.min(2);
    options.cache_size = CACHE_SIZE;
    options.positive_max_ttl = Some(LONGEST_KEPT);
    options.negative_max_ttl = Some(ABSENCE_KEPT);
    options.max_active_requests = QUESTIONS_AT_ONCE;
    builder.build().map_err(std::io::Error::other)
}

fn asking(servers: &[SocketAddr]) -> hickory_resolver::ResolverBuilder<TokioRuntimeProvider> {
    let servers = servers.iter().map(|server| {
        let at = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
        NameServerConfig::new(server.ip(), true, connections)
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = ResolverOpts::default();
    builder
}

impl Lookup for Resolver {
    fn lookup(&self, host: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        let (resolver, time) = (self.current(), self.time);
        Box::pin(async move {
            let looking = tokio::time::timeout(time, resolver.lookup_ip(host));
            let found = looking.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?;
            Ok(found.map_err(std::io::Error::other)?.iter().collect())
        })
    }
}
