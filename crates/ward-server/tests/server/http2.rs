//! HTTP/2 clients: the ends of their connections, and what they may send before it is read.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use ward_server::Limits;

use super::{PATIENCE, Server, patient, quick};

/// The bytes of one stream that wait for the service.
const WINDOW: usize = 64 * 1024;

/// An HTTP/2 client whose connection runs over `stream`.
pub async fn http2<T>(stream: T) -> hyper::client::conn::http2::SendRequest<Body>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub fn asking(path: &str) -> http::Request<Body> {
    http::Request::get(format!("http://w{path}")).body(Body::empty()).unwrap()
}

pub async fn closed(sender: &hyper::client::conn::http2::SendRequest<Body>) {
    let began = Instant::now();
    while !sender.is_closed() {
        assert!(began.elapsed() < PATIENCE, "the connection stays open");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_and_cut_when_idle() {
    let server = Server::start(quick()).await;
    let mut sender = http2(server.connect().await).await;
    let answer = sender.send_request(asking("/")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    drop(answer);
    closed(&sender).await;
}

#[tokio::test]
async fn http2_client_that_opens_no_window_is_cut() {
    let limits = Limits { request_time: Duration::from_millis(200), ..quick() };
    let server = Server::start(limits).await;
    let mut sender = http2(server.connect().await).await;
    // The answer's body is held and never read, so its window stays closed.
    let _unread = sender.send_request(asking("/large")).await.unwrap();
    closed(&sender).await;
}

#[tokio::test]
async fn shutdown_finishes_an_http2_request() {
    let mut server = Server::start(patient()).await;
    let mut sender = http2(server.connect().await).await;
    let asked = tokio::spawn(sender.send_request(asking("/held")));
    server.held.come.notified().await;
    server.stop();
    // The server has received the signal when it accepts no new connection.
    let began = Instant::now();
    while TcpStream::connect(server.address).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "it goes on listening");
        sleep(Duration::from_millis(20)).await;
    }
    server.held.may_go.notify_one();
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(&axum::body::to_bytes(Body::new(answer.into_body()), 100).await.unwrap()[..], b"done");
    timeout(PATIENCE, server.ended).await.unwrap().unwrap().unwrap();
}

/// Sends as much of a body as the server allows, until it allows nothing for a while. The result is the number of bytes.
async fn send_all_allowed(stream: &mut h2::SendStream<Bytes>) -> usize {
    let mut sent = 0;
    loop {
        stream.reserve_capacity(1 << 20);
        let allowed = timeout(Duration::from_millis(100), poll_fn(|cx| stream.poll_capacity(cx))).await;
        let Ok(Some(Ok(allowed))) = allowed else { return sent };
        stream.send_data(Bytes::from(vec![b'x'; allowed]), false).unwrap();
        sent += allowed;
    }
}

#[tokio::test]
async fn http2_bodies_that_are_not_read_wait_at_their_client() {
    let server = Server::start(patient()).await;
    let (mut sender, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut bodies = Vec::new();
    let mut allowed = Vec::new();
    for _ in 0..8 {
        sender = sender.ready().await.unwrap();
        let request = http::Request::post("http://w/never-read").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        server.held.come.notified().await;
        allowed.push(send_all_allowed(&mut body).await);
        bodies.push((answer, body));
    }
    // A connection's window is that of four streams.
    assert_eq!(allowed, [WINDOW, WINDOW, WINDOW, WINDOW, 0, 0, 0, 0]);
    server.held.may_go.notify_waiters();
    for (answer, _body) in bodies {
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    }
    connection.abort();
}
