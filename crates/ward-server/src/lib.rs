//! The outermost layer: sockets, requests, and bounds on the cost of a connection.
//!
//! [`serve`] serves the API and `/metrics`. No slow client and no large number of clients can block the
//! server: every wait for a client is bounded, and connections are counted.
//!
//! | the client | is bounded by |
//! |---|---|
//! | sends its request head slowly, or nothing at all | `header_time`, idle keep-alive included |
//! | sends a large head | `header_bytes`, answered 431 |
//! | does not read its answer | `write_idle` |
//! | opens many connections | `connections`, `connections_per_address`, answered 503 |
//! | occupies the last connections without sending | the next client of an address with fewer connections |
//! | sends a body that the handler does not read | a short rest is read, otherwise the answer has
//! `connection: close` |
//!
//! The time of a request and the size of its body are bounded by the product, because only it can compose
//! the answer.

mod admission;
mod backlog;
mod connection;
mod h2_watch;
pub mod key_file;
mod limits;
mod refusal;
mod request;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use http::{HeaderMap, Request};
use ipnet::IpNet;
use metrics::counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use self::admission::Admission;
use self::connection::{Kit, Stage};
pub use self::limits::Limits;
use self::request::Client;
pub use self::request::RequestBody;

/// The other end of the TCP connection: an extension of every request.
///
/// IPv4 clients of a dual-stack listener appear as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The options of one listener; a process may have several.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The bounds on the listener's connections and their requests.
    pub limits: Limits,
    /// The TLS configuration. With one, the listener accepts only TLS (HTTP/2 and HTTP/1.1 by ALPN).
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Peers that are exempt from the limit per address, because many clients connect through them.
    pub trusted_proxies: Vec<IpNet>,
    /// Header fields of every answer, including answers without the service: to refused connections and malformed HTTP.
    pub fields: HeaderMap,
    /// More header fields of the answers without the service, which would add them to its own.
    pub early_fields: HeaderMap,
}

/// Connections that get a refusal at the same time. Further ones are closed without an answer, so that
/// refusing costs less than serving.
const REFUSALS_AT_ONCE: usize = 128;

/// Pause after a failed accept. Without file descriptors, accept fails again at once, and the loop would
/// spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Serves `service` on `listener` until `shutdown` resolves, and then finishes accepted requests.
///
/// Returns when every connection has ended, at the latest `limits.shutdown_time` after `shutdown`. Dropping
/// the future stops accepting but leaves open connections running, so it is not a way to stop.
///
/// # Errors
/// Only if the listener's own address cannot be read. A failed accept is logged and counted, and serving
/// goes on.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    S: tower::Service<Request<RequestBody>, Response = Response, Error = Infallible>
        + Clone
        + Send
        + Sync
        + Unpin
        + 'static,
    S::Future: Send + 'static,
{
    let address = listener.local_addr()?;
    let admission = Arc::new(Admission::new(&options));
    let kit = Arc::new(Kit::new(&options));
    let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE));
    let (stage, _) = watch::channel(Stage::Open);
    let mut accept_log = AcceptLog::default();

    let take = |stream: TcpStream, peer: SocketAddr| {
        // Answers are written whole, so waiting to fill a segment would only add latency. A failure here
        // means a dead socket.
        let _ = stream.set_nodelay(true);
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        match admission.admit(peer.ip()) {
            Ok(admitted) => {
                let (kit, service, stage) = (Arc::clone(&kit), service.clone(), stage.subscribe());
                tokio::spawn(async move {
                    let place = Arc::clone(admitted.place());
                    let client =
                        Client { peer: Peer(peer), place: Arc::clone(&place), still_sending: Arc::default() };
                    tokio::select! {
                        biased;
                        () = connection::run(&kit, stream, client, service, stage) => {}
                        () = place.given_up() => tracing::debug!("connection given up for another client"),
                    }
                    drop(admitted);
                });
            }
            Err(reason) => {
                counter!("ward_connections_refused_total", "reason" => reason.label()).increment(1);
                if !kit.speaks_tls()
                    && let Ok(permit) = Arc::clone(&refusals).try_acquire_owned()
                {
                    let kit = Arc::clone(&kit);
                    tokio::spawn(async move {
                        refusal::too_many_connections(stream, kit.early()).await;
                        drop(permit);
                    });
                }
            }
        }
    };

    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => take(stream, peer),
            Err(error) => {
                if accept_log.matters(&error) {
                    tracing::error!(%error, listener = %address, "cannot accept a connection");
                }
                if !gone_before_accept(&error) {
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    backlog::close(listener, take).await;
    finish(&stage, options.limits.shutdown_time).await;
    Ok(())
}

/// Waits up to `limit` for connections to end by themselves, and then ends them.
async fn finish(stage: &watch::Sender<Stage>, limit: Duration) {
    stage.send_replace(Stage::Draining);
    // Every connection has a receiver, so "all closed" means that no connection is left.
    if tokio::time::timeout(limit, stage.closed()).await.is_err() {
        tracing::warn!(
            connections = stage.receiver_count(),
            "shutdown_time is over; closing the remaining connections"
        );
        stage.send_replace(Stage::Over);
        // They end at their next poll. One second is generous, and a stuck connection must not block the
        // process.
        let _ = tokio::time::timeout(Duration::from_secs(1), stage.closed()).await;
    }
}

/// Whether the client disconnected before the accept, which is no fault of the listener.
fn gone_before_accept(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// Counts failed accepts, and logs only one of them in ten seconds.
#[derive(Default)]
struct AcceptLog {
    last: Option<Instant>,
}

impl AcceptLog {
    fn matters(&mut self, error: &io::Error) -> bool {
        if gone_before_accept(error) {
            return false;
        }
        counter!("ward_accept_errors_total").increment(1);
        let due = self.last.is_none_or(|last| last.elapsed() > Duration::from_secs(10));
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}
