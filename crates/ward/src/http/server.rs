//! The outermost shell: sockets in, requests out, and bounds on what a connection may cost.
//!
//! [`serve`] is used for the API and for `/metrics`. What it adds to plain HTTP serving is that no client, slow or
//! many, can hold the server: every wait on a client has an end, and connections are counted.
//!
//! | the client | is bounded by |
//! |---|---|
//! | sends its request head slowly, or nothing at all | `header_time`, idle keep-alive included |
//! | sends a large head | `header_bytes`, answered 431 |
//! | does not read its answer | `write_idle` |
//! | opens many connections | `connections`, `connections_per_address`, answered 503 |
//! | holds the last places and says nothing | the next client of an address with fewer connections |
//! | sends a body that is not read | a short rest is read, otherwise the answer says `connection: close` |
//!
//! A request's own time and its body's size are the product's to bound: only it can answer in its own words.

mod admission;
mod connection;
mod h2_watch;
mod refusal;
mod request;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use http::Request;
use ipnet::IpNet;
use metrics::counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use self::admission::Admission;
pub use self::admission::Network;
use self::connection::{Kit, Stage};
use self::request::Client;
pub use self::request::RequestBody;
use crate::config::Limits;

/// Who is at the other end of the TCP connection: an extension of every request.
///
/// IPv4 clients of a dual-stack listener appear as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// How one listener is served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Bounds; of these `serve` uses all but the body's and the JSON's.
    pub limits: Limits,
    /// Set: the listener speaks TLS (HTTP/2 and HTTP/1.1 by ALPN) and nothing else.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Peers exempt from the limit per address, because many clients come through them.
    pub trusted_proxies: Vec<IpNet>,
}

/// Connections told "too many" at once; beyond it they are closed without a word, so that refusing costs less than serving.
const REFUSALS_AT_ONCE: usize = 128;

/// Rest after a failed accept. Out of file descriptors, accept fails at once again: without it the loop would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Serves `service` on `listener` until `shutdown` resolves, then finishes what was accepted.
///
/// Returns once every connection has ended, or `limits.shutdown_time` after `shutdown` at the latest. Dropping the future
/// stops accepting but leaves open connections running: it is not the way to stop.
///
/// # Errors
/// Only when the listener's own address cannot be read; a failed accept is logged, counted and outlived.
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
        // Answers are written whole; waiting to fill a segment only adds latency. A failure here is a dead socket.
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
                    tokio::spawn(async move {
                        refusal::too_many_connections(stream).await;
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

    drain_backlog(&listener, take).await;
    drop(listener);
    finish(&stage, options.limits.shutdown_time).await;
    Ok(())
}

/// Takes what the kernel has already accepted: those clients were told that they are connected.
async fn drain_backlog(listener: &TcpListener, mut take: impl FnMut(TcpStream, SocketAddr)) {
    // Polled without waiting: `Pending` means that the backlog is empty.
    loop {
        let next = std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx)));
        match next.await {
            std::task::Poll::Ready(Ok((stream, peer))) => take(stream, peer),
            _ => return,
        }
    }
}

/// Lets connections end by themselves for up to `limit`, then ends them.
async fn finish(stage: &watch::Sender<Stage>, limit: Duration) {
    stage.send_replace(Stage::Draining);
    // Every connection holds a receiver, so "all closed" is "no connection left".
    if tokio::time::timeout(limit, stage.closed()).await.is_err() {
        tracing::warn!(connections = stage.receiver_count(), "shutdown time is over: ending what is left");
        stage.send_replace(Stage::Over);
        // They end at their next poll; a second is generous, and a stuck one must not hold the process.
        let _ = tokio::time::timeout(Duration::from_secs(1), stage.closed()).await;
    }
}

/// The client hung up between connecting and being accepted; the listener is well.
fn gone_before_accept(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// Counts failed accepts and keeps twenty a second from becoming twenty log lines.
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
