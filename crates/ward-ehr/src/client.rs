//! The one client for every outbound request: endpoint calls, token and discovery URLs, health checks, sync.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, HOST, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::{Host, Url};

use crate::address;
use crate::failure::{Failure, FailureKind};
use crate::resolver::Resolver;

/// The header by which an installation knows its own requests. A Ward that gets one refuses it, so that no tenant can make
/// Ward call itself, whatever name or proxy lies between.
pub const HOP: HeaderName = HeaderName::from_static("x-ward-hop");

/// How many redirects within one origin are followed.
const REDIRECTS: usize = 5;
/// How many integrations' gates are remembered at once; idle ones are forgotten first.
const GATES: usize = 10_000;

/// What the operator allows and how much one call may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Networks that may be connected to although they are not globally routable.
    pub allow: Vec<IpNet>,
    /// Whether plain http may be spoken.
    pub plain_http: bool,
    /// Longest time of one call: every try, every redirect, and getting a token.
    pub total_time: Duration,
    /// Longest time to a connection.
    pub connect_time: Duration,
    /// Largest answer, bytes.
    pub body_bytes: usize,
    /// Calls of one integration under way at once.
    pub concurrency: usize,
    /// Certificates of authorities, PEM, trusted besides the system's.
    pub extra_roots: Vec<u8>,
    /// Name servers to ask instead of the system's.
    pub name_servers: Vec<SocketAddr>,
    /// Longest time of one name look-up.
    pub lookup_time: Duration,
    /// The value of [`HOP`] on every request.
    pub installation: Option<HeaderValue>,
    /// Scheme, host and port under which this installation is reached, as an origin.
    pub own_origin: Option<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            plain_http: false,
            total_time: Duration::from_secs(10),
            connect_time: Duration::from_secs(5),
            body_bytes: 1 << 20,
            concurrency: 8,
            extra_roots: Vec::new(),
            name_servers: Vec::new(),
            lookup_time: Duration::from_secs(5),
            installation: None,
            own_origin: None,
        }
    }
}

/// Looks names up. A trait so that a test can be a name server that changes its mind.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of a host name.
    fn lookup(&self, host: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;
}

/// Gives the HTTP client only addresses that may be connected to. It connects to exactly these, so what a name means a
/// moment later (DNS rebinding) changes nothing.
struct Guarded {
    lookup: Arc<dyn Lookup>,
    allow: Arc<[IpNet]>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let looking = self.lookup.lookup(name.as_str().to_owned());
        let allow = self.allow.clone();
        Box::pin(async move {
            let found = looking.await.map_err(|error| {
                let kind = match error.kind() {
                    std::io::ErrorKind::TimedOut => FailureKind::Timeout,
                    _ => FailureKind::Unreachable,
                };
                Failure::new(kind, "the host name could not be looked up")
            })?;
            if found.is_empty() {
                return Err(Failure::new(FailureKind::Unreachable, "the host name has no address").into());
            }
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|found| address::allowed(*found, &allow))
                .map(|found| SocketAddr::new(found, 0))
                .collect();
            if allowed.is_empty() {
                return Err(inner_address().into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn own_address() -> Failure {
    Failure::misconfigured("this is the address of this server itself, which it does not call")
}

fn inner_address() -> Failure {
    Failure::misconfigured("the host has no address that this server may connect to")
}

/// The one client. Clones share connections and gates.
#[derive(Clone)]
pub struct Outbound {
    client: reqwest::Client,
    limits: Arc<Limits>,
    gates: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    lookup: Arc<dyn Lookup>,
    /// Where this server listens.
    own: Arc<RwLock<Vec<SocketAddr>>>,
    /// Pieces of CPU work under way at once.
    working: Arc<Semaphore>,
}

/// A request to send.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers; authorization is the caller's to add.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Outbound {
    /// A client under these limits. Blocking for a moment: it reads the system's certificates.
    ///
    /// # Errors
    /// When the extra certificates are not PEM.
    pub fn new(limits: Limits) -> Result<Self, Failure> {
        let resolver = Resolver::new(limits.name_servers.clone(), limits.lookup_time)
            .map_err(|_| Failure::misconfigured("the name servers cannot be used"))?;
        let lookup: Arc<dyn Lookup> = Arc::new(resolver);
        Self::looking_up(limits, &lookup)
    }

    /// The same with another resolver.
    ///
    /// # Errors
    /// When the extra certificates are not PEM.
    pub fn looking_up(limits: Limits, lookup: &Arc<dyn Lookup>) -> Result<Self, Failure> {
        let roots = reqwest::Certificate::from_pem_bundle(&limits.extra_roots)
            .map_err(|_| Failure::misconfigured("the extra certificates are not PEM"))?;
        let allow: Arc<[IpNet]> = limits.allow.clone().into();
        let builder = || {
            reqwest::Client::builder()
                .dns_resolver(Guarded { lookup: lookup.clone(), allow: allow.clone() })
                // A proxy in the environment would see every secret, and would look names up itself.
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .https_only(!limits.plain_http)
                .http1_only()
                .connect_timeout(limits.connect_time)
                .pool_idle_timeout(Duration::from_secs(30))
                .pool_max_idle_per_host(limits.concurrency)
                .user_agent(concat!("ward/", env!("CARGO_PKG_VERSION")))
        };
        let client = match builder().tls_certs_merge(roots.clone()).build() {
            Ok(client) => client,
            // A machine without certificates of its own: what the operator gave is all there is.
            Err(error) => {
                tracing::warn!(
                    cause = error.source_text(),
                    "the system's certificates cannot be used; https calls trust the configured ones only"
                );
                builder()
                    .tls_certs_only(roots)
                    .build()
                    .map_err(|error| Failure::misconfigured(error.source_text()))?
            }
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            client,
            limits: Arc::new(limits),
            gates: Arc::default(),
            lookup: lookup.clone(),
            own: Arc::default(),
            working: Arc::new(Semaphore::new(cores.max(2))),
        })
    }

    /// Notes an address at which this server listens, so that it is never called.
    pub fn listens_at(&self, address: SocketAddr) {
        self.own.write().push(address);
    }

    /// Runs work that takes long on a thread of its own, few pieces at once.
    ///
    /// # Errors
    /// When the work panics.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let ended = || Failure::new(FailureKind::Garbage, "the answer could not be worked on");
        let place = self.working.clone().acquire_owned().await.map_err(|_| ended())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.map_err(|_| ended())
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits for one of the `key`'s places. It is given back when the permit is dropped.
    ///
    /// # Errors
    /// [`FailureKind::Busy`] when none came free until `deadline`.
    pub async fn enter(&self, key: &str, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        let gate = {
            let mut gates = self.gates.lock();
            if gates.len() >= GATES {
                // Only the table holds a gate that nobody waits at or has passed.
                gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            }
            gates
                .entry(key.to_owned())
                .or_insert_with(|| Arc::new(Semaphore::new(self.limits.concurrency)))
                .clone()
        };
        let busy = || Failure::new(FailureKind::Busy, "too many calls of this integration are under way");
        match tokio::time::timeout_at(deadline, gate.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// Sends one request and reads its answer. Any status is an answer. A `GET` is followed within its own origin; any
    /// other redirect is the answer.
    ///
    /// # Errors
    /// When there is no answer until `deadline`, or none that may be had.
    pub async fn send(&self, request: &Request, deadline: Instant) -> Result<Answer, Failure> {
        match tokio::time::timeout_at(deadline, self.follow(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(FailureKind::Timeout, "no answer in time")),
        }
    }

    async fn follow(&self, request: &Request) -> Result<Answer, Failure> {
        let mut url = request.url.clone();
        for _ in 0..REDIRECTS {
            let answer = self.once(request, &url).await?;
            let target = next_hop(&url, &answer).filter(|_| request.method == Method::GET);
            match target {
                Some(target) => url = target,
                None => return Ok(answer),
            }
        }
        Err(Failure::new(FailureKind::Garbage, "the redirects do not end"))
    }

    async fn once(&self, request: &Request, url: &Url) -> Result<Answer, Failure> {
        self.permit(url)?;
        self.refuse_own(url).await?;
        let mut headers = request.headers.clone();
        // The client does not decompress: a small answer stays small.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(installation) = &self.limits.installation {
            headers.insert(HOP, installation.clone());
        }
        let mut sent = self.client.request(request.method.clone(), url.clone()).headers(headers);
        if !request.body.is_empty() {
            sent = sent.body(request.body.clone());
        }
        let mut response = sent.send().await.map_err(|error| Failure::of_client(&error))?;
        // What was connected to is what was allowed; should a change to the client break that, nothing is read.
        if response.remote_addr().is_some_and(|peer| !address::allowed(peer.ip(), &self.limits.allow)) {
            return Err(inner_address());
        }
        let too_large = || {
            Failure::new(
                FailureKind::TooLarge,
                format!("the answer is larger than {} bytes", self.limits.body_bytes),
            )
        };
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of_client(&error))? {
            if body.len() + chunk.len() > self.limits.body_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: body.freeze() })
    }

    /// Refuses a URL that leads to this server. Where the way is longer, through a proxy or another name, [`HOP`] ends it.
    async fn refuse_own(&self, url: &Url) -> Result<(), Failure> {
        if self.limits.own_origin.as_deref() == Some(url.origin().ascii_serialization().as_str()) {
            return Err(own_address());
        }
        let own = self.own.read().clone();
        let port = url.port_or_known_default().unwrap_or_default();
        if !own.iter().any(|listener| listener.port() == port) {
            return Ok(());
        }
        let addresses = match url.host() {
            Some(Host::Ipv4(four)) => vec![IpAddr::V4(four)],
            Some(Host::Ipv6(six)) => vec![IpAddr::V6(six)],
            // A name that cannot be looked up leads nowhere, and the client says so.
            Some(Host::Domain(name)) => self.lookup.lookup(name.to_owned()).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let leads_here = |address: &IpAddr| {
            let address = address.to_canonical();
            own.iter().any(|listener| {
                let here = listener.ip().to_canonical();
                listener.port() == port
                    && (here == address || (here.is_unspecified() && address::is_of_this_machine(address)))
            })
        };
        if addresses.iter().any(leads_here) { Err(own_address()) } else { Ok(()) }
    }

    /// Refuses what must not even be tried: other schemes, plain http, and addresses written out in the URL, which no
    /// resolver sees.
    fn permit(&self, url: &Url) -> Result<(), Failure> {
        match url.scheme() {
            "https" => {}
            "http" if self.limits.plain_http => {}
            "http" => {
                return Err(Failure::misconfigured("plain http is not allowed on this server; use https"));
            }
            _ => return Err(Failure::misconfigured("only https URLs can be called")),
        }
        let literal = match url.host() {
            Some(Host::Ipv4(four)) => Some(IpAddr::V4(four)),
            Some(Host::Ipv6(six)) => Some(IpAddr::V6(six)),
            Some(Host::Domain(_)) => None,
            None => return Err(Failure::misconfigured("the URL has no host")),
        };
        if literal.is_some_and(|literal| !address::allowed(literal, &self.limits.allow)) {
            return Err(inner_address());
        }
        Ok(())
    }
}

/// Where a redirect leads, if it stays within scheme, host and port.
fn next_hop(from: &Url, answer: &Answer) -> Option<Url> {
    if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let target = from.join(answer.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    (target.origin() == from.origin() && target.origin().is_tuple()).then_some(target)
}

/// Headers that a caller must not set on a request: they belong to the connection, or to [`crate::auth`].
pub fn reserved_header(name: &HeaderName) -> bool {
    *name == HOST
        || *name == HOP
        || matches!(
            name.as_str(),
            "content-length"
                | "transfer-encoding"
                | "authorization"
                | "proxy-authorization"
                | "connection"
                | "keep-alive"
                | "proxy-connection"
                | "te"
                | "trailer"
                | "upgrade"
                | "expect"
                | "accept-encoding"
        )
}

/// What lies under a client's error, for the operator's log.
trait SourceText {
    fn source_text(&self) -> String;
}

impl SourceText for reqwest::Error {
    fn source_text(&self) -> String {
        std::error::Error::source(self).map_or_else(|| "unknown".to_owned(), ToString::to_string)
    }
}
