//! An EHR that accepts every write at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::Failure;

/// The address of the receiver, and the number of accepted writes.
pub struct Receiver {
    /// The base URL of its FHIR interface.
    pub url: String,
    accepted: Arc<AtomicU64>,
}

impl Receiver {
    /// Starts a receiver in the current runtime.
    pub async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/fhir", listener.local_addr()?);
        let accepted = Arc::new(AtomicU64::new(0));
        let counted = accepted.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let counted = counted.clone();
                tokio::spawn(async move {
                    let (mut buffer, mut chunk) = (Vec::new(), [0; 16 << 10]);
                    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                        buffer.extend_from_slice(&chunk[..read]);
                        while let Some(whole) = whole_request(&buffer) {
                            buffer.drain(..whole);
                            let id = counted.fetch_add(1, Ordering::Relaxed);
                            let answer = format!(
                                "HTTP/1.1 201 Created\r\nlocation: /fhir/Communication/{id}\r\n\
                                 content-length: 0\r\n\r\n"
                            );
                            if stream.write_all(answer.as_bytes()).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Ok(Self { url, accepted })
    }

    /// The number of accepted writes so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// The length of the first request in `buffer`, if the request is complete.
fn whole_request(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let whole = head + length.unwrap_or(0);
    (buffer.len() >= whole).then_some(whole)
}
