//! The only client for outbound requests: endpoint calls, token and discovery URLs, health checks,
//! deliveries.

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
use crate::budget::Budget;
use crate::failure::{Failure, FailureKind};
use crate::resolver::Resolver;

/// The header by which an installation recognizes its own requests. A Ward that receives one refuses it. So
/// no tenant can make Ward call itself, through any name or proxy.
pub const HOP: HeaderName = HeaderName::from_static("x-ward-hop");

/// The maximum number of redirects that are followed within one origin.
const REDIRECTS: usize = 5;
/// The maximum number of integrations whose gates are kept; idle ones are dropped first.
const GATES: usize = 10_000;

/// The operator's permissions, and the limits of one call.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Networks that may be connected to although they are not globally routable.
    pub allow: Vec<IpNet>,
    /// Whether URLs may use http without TLS.
    pub plain_http: bool,
    /// The time limit of one call, including every attempt, every redirect, and fetching a token.
    pub total_time: Duration,
    /// The time limit for making a connection.
    pub connect_time: Duration,
    /// The maximum size of an answer, in bytes.
    pub body_bytes: usize,
    /// The maximum number of concurrent calls of one integration.
    pub concurrency: usize,
    /// PEM certificates of authorities that are trusted in addition to the system's.
    pub extra_roots: Vec<u8>,
    /// Name servers to use instead of the system's.
    pub name_servers: Vec<SocketAddr>,
    /// The time limit of one name look-up.
    pub lookup_time: Duration,
    /// Name look-ups under way at once, at most. As many as there can be calls, so that no call waits for others' names.
    pub lookups: usize,
    /// The value of [`HOP`] on every request.
    pub installation: Option<HeaderValue>,
    /// The origin (scheme, host and port) of this installation's public URL.
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
            lookups: 2048,
            installation: None,
            own_origin: None,
        }
    }
}

/// Resolves host names. It is a trait so that a test can replace the name server.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of a host name.
    fn lookup(&self, host: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;
}

/// Passes only allowed addresses to the HTTP client. The client connects to exactly these, so a later answer
/// for the same name (DNS rebinding) has no effect.
struct GuardedResolver {
    lookup: Arc<dyn Lookup>,
    allow: Arc<[IpNet]>,
}

impl Resolve for GuardedResolver {
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
    Failure::misconfigured("this is the address of this server itself, which Ward does not call")
}

fn inner_address() -> Failure {
    Failure::misconfigured("the host has no address that this server may connect to")
}

/// The only outbound client. Clones share its connections and gates.
#[derive(Clone)]
pub struct Outbound {
    client: reqwest::Client,
    limits: Arc<Limits>,
    gates: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    lookup: Arc<dyn Lookup>,
    /// The addresses at which this server listens.
    own: Arc<RwLock<Vec<SocketAddr>>>,
    /// Limits how many pieces of CPU work run at once.
    working: Arc<Semaphore>,
    /// The requests and bytes that are left for the calls through this clone.
    budget: Option<Budget>,
}

/// A request, to which [`crate::Auth`] adds the credentials.
#[derive(Clone, Debug)]
pub struct Request {
    /// The HTTP method of the request.
    pub method: Method,
    /// The absolute URL, with its query.
    pub url: Url,
    /// The headers, without the credentials, which [`crate::Auth`] adds.
    pub headers: HeaderMap,
    /// The body; empty if there is none.
    pub body: Bytes,
}

/// An answer that was read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status, after any followed redirects.
    pub status: StatusCode,
    /// The headers of the final answer.
    pub headers: HeaderMap,
    /// The whole body as it was sent, not decompressed. That of a redirect is not read.
    pub body: Bytes,
}

impl Outbound {
    /// A client with these limits. It blocks briefly, because it reads the system's certificates.
    ///
    /// # Errors
    /// The extra certificates are not PEM.
    pub fn new(limits: Limits) -> Result<Self, Failure> {
        let resolver = Resolver::new(limits.name_servers.clone(), limits.lookup_time, limits.lookups)
            .map_err(|_| Failure::misconfigured("the name servers cannot be used"))?;
        let lookup: Arc<dyn Lookup> = Arc::new(resolver);
        Self::looking_up(limits, &lookup)
    }

    /// Like [`Self::new`], with another resolver.
    ///
    /// # Errors
    /// The extra certificates are not PEM.
    #[expect(clippy::disallowed_methods, reason = "the guarded client itself")]
    pub fn looking_up(limits: Limits, lookup: &Arc<dyn Lookup>) -> Result<Self, Failure> {
        let roots = reqwest::Certificate::from_pem_bundle(&limits.extra_roots)
            .map_err(|_| Failure::misconfigured("the extra certificates are not PEM"))?;
        let allow: Arc<[IpNet]> = limits.allow.clone().into();
        let builder = || {
            reqwest::Client::builder()
                .dns_resolver(GuardedResolver { lookup: lookup.clone(), allow: allow.clone() })
                // A proxy from the environment would see every secret, and would resolve names itself.
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
            // The machine has no certificates of its own, so only the operator's are trusted.
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
            budget: None,
        })
    }

    /// The same client for the calls that one request of a client causes. They share this budget.
    #[must_use]
    pub fn within(&self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self.clone() }
    }

    /// Registers an address at which this server listens, so that it is never called.
    pub fn listens_at(&self, address: SocketAddr) {
        self.own.write().push(address);
    }

    /// Runs long work on a thread of its own; only a few pieces run at once.
    ///
    /// # Errors
    /// The work panicked.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let ended = || Failure::new(FailureKind::Garbage, "the answer could not be processed");
        let place = self.working.clone().acquire_owned().await.map_err(|_| ended())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.map_err(|_| ended())
    }

    /// The limits that this client enforces.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits for one of the places of `key`. Dropping the permit frees it.
    ///
    /// # Errors
    /// [`FailureKind::Busy`] if no place became free before `deadline`.
    pub async fn enter(&self, key: &str, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        let gate = {
            let mut gates = self.gates.lock();
            if gates.len() >= GATES {
                // A gate that only the table holds has no callers inside or waiting.
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

    /// Sends one request and reads its answer. Any status is an answer. A `GET` follows redirects within its
    /// own origin; any other redirect is the answer.
    ///
    /// # Errors
    /// There is no answer before `deadline`, or the answer is not allowed.
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
        Err(Failure::new(FailureKind::Garbage, "there are too many redirects"))
    }

    async fn once(&self, request: &Request, url: &Url) -> Result<Answer, Failure> {
        self.permit(url)?;
        self.refuse_own(url).await?;
        if let Some(budget) = &self.budget {
            budget.take_request()?;
        }
        let mut headers = request.headers.clone();
        // The client does not decompress, so that a small answer stays small.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(installation) = &self.limits.installation {
            headers.insert(HOP, installation.clone());
        }
        let mut sent = self.client.request(request.method.clone(), url.clone()).headers(headers);
        if !request.body.is_empty() {
            sent = sent.body(request.body.clone());
        }
        let mut response = sent.send().await.map_err(|error| Failure::of_client(&error))?;
        // The connected address was allowed before. If a change to the client ever breaks that, nothing is
        // read.
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
        // The body of a redirect is for people. Dropping it closes the connection.
        if status.is_redirection() {
            return Ok(Answer { status, headers, body: Bytes::new() });
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of_client(&error))? {
            if body.len() + chunk.len() > self.limits.body_bytes {
                return Err(too_large());
            }
            if let Some(budget) = &self.budget {
                budget.take_bytes(chunk.len())?;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: body.freeze() })
    }

    /// Refuses a URL that leads to this server. [`HOP`] stops a longer way, through a proxy or another name.
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
            // A name that cannot be resolved leads nowhere, and the client reports it.
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

    /// Refuses a URL before any attempt: other schemes, unencrypted http, and literal addresses, which no
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

/// The target of a redirect, if it keeps scheme, host and port.
fn next_hop(from: &Url, answer: &Answer) -> Option<Url> {
    if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let target = from.join(answer.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    (target.origin() == from.origin() && target.origin().is_tuple()).then_some(target)
}

/// Whether a caller must not set this header, because it belongs to the connection or to [`crate::auth`].
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

/// The cause of a client's error, for the operator's log.
trait SourceText {
    fn source_text(&self) -> String;
}

impl SourceText for reqwest::Error {
    fn source_text(&self) -> String {
        std::error::Error::source(self).map_or_else(|| "unknown".to_owned(), ToString::to_string)
    }
}
