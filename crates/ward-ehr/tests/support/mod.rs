//! Peers for the tests: real listeners that answer as a test tells them to.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use ward_ehr::{Limits, Outbound};

/// A listener that counts its connections and requests.
pub struct Peer {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
}

/// A request that a peer received: its head and its body.
#[derive(Clone, Debug)]
pub struct Heard {
    pub head: String,
    pub body: String,
    /// The number of earlier requests.
    pub index: usize,
}

impl Heard {
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Peer {
    /// A peer that answers each request with these bytes, then closes. `None` keeps the connection open and silent.
    pub async fn answering(respond: impl Fn(&Heard) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::answering_later(Duration::ZERO, respond).await
    }

    /// Like [`Self::answering`], with each answer delayed by `delay`.
    pub async fn answering_later(
        delay: Duration,
        respond: impl Fn(&Heard) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, asked) = (connections.clone(), requests.clone());
        let respond = Arc::new(respond);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                seen.fetch_add(1, Ordering::SeqCst);
                let (asked, respond) = (asked.clone(), respond.clone());
                tokio::spawn(async move {
                    let Some(mut heard) = hear(&mut stream).await else { return };
                    heard.index = asked.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(delay).await;
                    match respond(&heard) {
                        Some(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            let _ = stream.shutdown().await;
                        }
                        None => tokio::time::sleep(Duration::from_hours(1)).await,
                    }
                });
            }
        });
        Self { address, connections, requests }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Reads one request, by its `content-length`.
async fn hear(stream: &mut TcpStream) -> Option<Heard> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).await.ok()?;
        if read == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let heard = Heard { head: head.to_owned(), body: body.to_owned(), index: 0 };
        let length = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return Some(heard);
        }
    }
}

/// An answer with a body of JSON.
pub fn json(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// A redirect without a body.
pub fn redirect(status: u16, to: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .into_bytes()
}

/// Limits under which the peers here may be called.
pub fn open() -> Limits {
    Limits {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        plain_http: true,
        total_time: Duration::from_secs(5),
        ..Limits::default()
    }
}

pub fn outbound(limits: Limits) -> Outbound {
    Outbound::new(limits).unwrap()
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}
