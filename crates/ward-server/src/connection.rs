//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::response::Response;
use http::Request;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use crate::Limits;
use crate::ServeOptions;
use crate::h2_watch::{Activity, WatchedService};
use crate::refusal::{self, Fields, RefusalStream};
use crate::request::{Client, ForClient, RequestBody};

/// The state of the server, which its connections follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    /// The connection finishes its current requests and takes no new ones.
    Draining,
    /// The connection is cut at once.
    Over,
}

/// How long, at shutdown, a connection without any byte so far may still send its request. Its client may
/// have connected just before the shutdown.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Concurrent requests on one HTTP/2 connection. A client that wants more waits, or opens a second
/// connection, which the connection limits count.
const H2_STREAMS: u32 = 128;

/// Answer bytes that wait for one HTTP/2 stream whose client does not read.
const H2_STREAM_BUFFER: usize = 64 * 1024;

/// Bytes of bodies that one HTTP/2 connection may send before the service reads them, of one stream and of all.
const H2_UNREAD_OF_A_STREAM: u32 = 64 * 1024;
const H2_UNREAD: u32 = 256 * 1024;

/// The settings that all connections of a listener share.
pub(crate) struct Kit {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    fields: Arc<Fields>,
    /// The fields of answers that the service does not give.
    early: Arc<Fields>,
}

impl Kit {
    pub(crate) fn new(options: &ServeOptions) -> Self {
        let limits = options.limits.clone();
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_header_size(limits.header_bytes)
            // A client may end its sending half with its request and wait for the answer.
            .half_close(true)
            // This is also the largest piece in which a body is read. A smaller value makes the reading of
            // bodies slow.
            .max_buf_size(limits.header_bytes.max(64 * 1024));
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(H2_STREAM_BUFFER)
            .initial_stream_window_size(H2_UNREAD_OF_A_STREAM)
            .initial_connection_window_size(H2_UNREAD)
            // The pings find peers that vanished without a close. An idle peer answers them, and `h2_watch`
            // closes its connection.
            .keep_alive_interval(limits.header_time)
            .keep_alive_timeout(limits.write_idle);
        let fields = Arc::new(Fields::new(&options.fields));
        let mut early = options.fields.clone();
        early.extend(options.early_fields.clone());
        let early = Arc::new(Fields::new(&early));
        Self { http1, http2, tls: options.tls.clone().map(TlsAcceptor::from), limits, fields, early }
    }

    pub(crate) fn early(&self) -> &Fields {
        &self.early
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// Serves `stream` until one side closes it. An error on the connection appears in the debug log only.
pub(crate) async fn run<S>(
    kit: &Kit,
    stream: TcpStream,
    client: Client,
    service: S,
    stage: watch::Receiver<Stage>,
) where
    S: Answers,
    S::Future: Send + 'static,
{
    let service =
        ForClient { inner: service, client, fields: Arc::clone(&kit.fields), early: Arc::clone(&kit.early) };
    if let Some(tls) = &kit.tls {
        let handshake = timeout(kit.limits.header_time, tls.accept(stream));
        let stream = tokio::select! {
            biased;
            shaken = handshake => match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => return tracing::debug!("TLS handshake took too long"),
            },
            () = reached(stage.clone(), |stage| stage == Stage::Over) => return,
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            serve_http2(kit, stream, service, stage).await;
        } else {
            serve_http1(kit, stream, service, stage).await;
        }
        return;
    }
    match sniff(&stream, kit.limits.header_time, stage.clone()).await {
        Some(Protocol::Http1) => serve_http1(kit, stream, service, stage).await,
        Some(Protocol::Http2) => serve_http2(kit, stream, service, stage).await,
        None => {}
    }
}

enum Protocol {
    Http1,
    Http2,
}

/// Distinguishes HTTP/2 with prior knowledge from HTTP/1 by the first bytes, which stay in the socket's
/// buffer. The result is `None` if no byte arrived in time.
///
/// The automatic builder of hyper-util does this too, but it waits for the first bytes without a limit.
async fn sniff(stream: &TcpStream, limit: Duration, stage: watch::Receiver<Stage>) -> Option<Protocol> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let look = async {
        let mut seen = [0; PREFACE.len()];
        loop {
            let count = stream.peek(&mut seen).await.ok().filter(|count| *count > 0)?;
            if !PREFACE.starts_with(&seen[..count]) {
                return Some(Protocol::Http1);
            }
            if count == PREFACE.len() {
                return Some(Protocol::Http2);
            }
            // The bytes are a part of the preface. A new peek returns the same part at once, so the loop
            // waits a little first.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut look = std::pin::pin!(timeout(limit, look));
    tokio::select! {
        biased;
        seen = &mut look => seen.ok().flatten(),
        () = reached(stage, |stage| stage != Stage::Open) => timeout(LAST_CALL, look).await.ok()?.ok().flatten(),
    }
}

/// Waits until `reached` holds for the stage. The stage stays unseen for the next reader of the receiver.
async fn reached(mut stage: watch::Receiver<Stage>, reached: impl Fn(Stage) -> bool) {
    if stage.wait_for(|stage| reached(*stage)).await.is_err() {
        // The server has gone, so there is no next stage.
        std::future::pending::<()>().await;
    }
}

/// The stream for hyper, with a bound on the time in which a write makes no progress.
fn bounded<T: AsyncRead + AsyncWrite>(stream: T, limits: &Limits) -> Pin<Box<TimeoutStream<T>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_idle));
    Box::pin(stream)
}

async fn serve_http1<T, S>(kit: &Kit, stream: T, service: ForClient<S>, mut stage: watch::Receiver<Stage>)
where
    T: AsyncRead + AsyncWrite,
    S: Answers,
    S::Future: Send + 'static,
{
    let stream = TokioIo::new(RefusalStream::new(bounded(stream, &kit.limits), Arc::clone(&kit.early)));
    let still_sending = Arc::clone(&service.client.still_sending);
    let mut connection = kit.http1.serve_connection(stream, service);
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            stage = changed(&mut stage) => match stage {
                Stage::Over => return,
                _ => Pin::new(&mut connection).graceful_shutdown(),
            },
        }
    };
    let unparsed = match ended {
        Ok(()) => false,
        Err(error) => {
            tracing::debug!(%error, "connection ended early");
            // hyper has already answered 400, 414 or 431.
            error.is_parse()
        }
    };
    if unparsed || still_sending.load(Ordering::Relaxed) {
        // The client may still be sending. A close at once could reach it before the answer.
        refusal::linger(connection.into_parts().io.inner_mut()).await;
    }
}

async fn serve_http2<T, S>(kit: &Kit, stream: T, service: ForClient<S>, mut stage: watch::Receiver<Stage>)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
    S: Answers,
    S::Future: Send + 'static,
{
    let activity = Arc::new(Activity::new(&kit.limits));
    let service = WatchedService::new(service, Arc::clone(&activity));
    let stream = TokioIo::new(bounded(stream, &kit.limits));
    let mut connection = std::pin::pin!(kit.http2.serve_connection(stream, service));
    let mut check = std::pin::pin!(tokio::time::sleep_until(activity.deadline()));
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended early");
                }
                return;
            }
            stage = changed(&mut stage) => match stage {
                Stage::Over => return,
                _ => connection.as_mut().graceful_shutdown(),
            },
            () = &mut check => {
                let deadline = activity.deadline();
                if deadline > Instant::now() {
                    check.as_mut().reset(deadline);
                } else if closing {
                    return tracing::debug!("HTTP/2 connection made no progress");
                } else {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                    check.as_mut().reset(Instant::now() + kit.limits.write_idle);
                }
            }
        }
    }
}

/// The next stage. The future never resolves when the server has gone, because there is no next stage.
async fn changed(stage: &mut watch::Receiver<Stage>) -> Stage {
    match stage.changed().await {
        Ok(()) => *stage.borrow_and_update(),
        Err(_) => std::future::pending().await,
    }
}

/// The bounds that `serve` puts on a service.
pub(crate) trait Answers:
    tower::Service<Request<RequestBody>, Response = Response, Error = Infallible>
    + Clone
    + Send
    + Sync
    + Unpin
    + 'static
{
}

impl<S> Answers for S where
    S: tower::Service<Request<RequestBody>, Response = Response, Error = Infallible>
        + Clone
        + Send
        + Sync
        + Unpin
        + 'static
{
}
