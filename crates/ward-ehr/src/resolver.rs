//! Name look-ups that block no thread: a tenant can choose names whose servers never answer.

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

/// The files that configure the system's name look-ups.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// How often Ward checks whether those files have changed.
const CHECKED_EVERY: Duration = Duration::from_secs(10);
/// The maximum number of cached answers, and the longest time that they are kept.
const CACHE_SIZE: u64 = 4096;
const LONGEST_KEPT: Duration = Duration::from_mins(5);
/// How long the absence of a name is cached.
const ABSENCE_KEPT: Duration = Duration::from_secs(10);
/// The time limit of one name server before another is asked.
const SERVER_TIME: Duration = Duration::from_secs(2);
/// Questions of one look-up under way at once: for addresses of both kinds.
const QUESTIONS_OF_A_LOOKUP: usize = 2;

/// Resolves names at the system's name servers, or at others, within Ward's own tasks. Answers are cached.
pub struct Resolver {
    /// The name servers; empty for the system's.
    servers: Vec<SocketAddr>,
    /// Questions under way at once on one connection to a name server.
    questions: usize,
    /// Longest time of one look-up, every server and retry included.
    time: Duration,
    state: Mutex<CacheState>,
}

struct CacheState {
    resolver: TokioResolver,
    /// The last known modification times of the system's files.
    changed: [Option<SystemTime>; 2],
    checked: Instant,
}

impl Resolver {
    /// A resolver that asks these name servers, or the system's where there are none. The hosts file decides first.
    /// `lookups` is how many names are looked up at once; more of them at once are an error.
    pub fn new(servers: Vec<SocketAddr>, time: Duration, lookups: usize) -> std::io::Result<Self> {
        let questions = lookups.saturating_mul(QUESTIONS_OF_A_LOOKUP);
        let resolver = build(&servers, questions)?;
        let state = CacheState { resolver, changed: changed(), checked: Instant::now() };
        Ok(Self { servers, questions, time, state: Mutex::new(state) })
    }

    /// The current resolver. When the system's files have changed, a new one with an empty cache replaces it.
    fn current(&self) -> TokioResolver {
        let mut state = self.state.lock();
        if state.checked.elapsed() >= CHECKED_EVERY {
            state.checked = Instant::now();
            let changed = changed();
            if changed != state.changed {
                match build(&self.servers, self.questions) {
                    Ok(resolver) => (state.resolver, state.changed) = (resolver, changed),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the system's resolver files; the previous settings stay in use");
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

fn build(servers: &[SocketAddr], questions: usize) -> std::io::Result<TokioResolver> {
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
    options.max_active_requests = questions;
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
