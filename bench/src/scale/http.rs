//! One connection that is kept, and one request at a time on it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Failure;

/// A request and the status that its answer is to have.
pub struct Request {
    /// Its bytes.
    bytes: Vec<u8>,
    /// The status.
    pub expected: u16,
}

/// An answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Request {
    /// A `GET` with a bearer.
    pub fn get(path: &str, bearer: &str, expected: u16) -> Self {
        let text = format!("GET {path} HTTP/1.1\r\nhost: scale\r\nauthorization: Bearer {bearer}\r\n\r\n");
        Self { bytes: text.into_bytes(), expected }
    }

    /// A `POST` of JSON, to be answered with 201.
    pub fn post(path: &str, bearer: Option<&str>, body: &str) -> Self {
        let bearer = bearer.map(|bearer| format!("authorization: Bearer {bearer}\r\n")).unwrap_or_default();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: scale\r\n{bearer}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { bytes: text.into_bytes(), expected: 201 }
    }
}

/// A connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn to(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, buffer: Vec::with_capacity(1 << 16) })
    }

    /// Sends a request and reads its whole answer.
    pub fn send(&mut self, request: &Request) -> Result<Answer, Failure> {
        self.stream.write_all(&request.bytes)?;
        self.buffer.clear();
        let mut chunk = vec![0; 1 << 16];
        let mut whole = None;
        while whole.is_none_or(|(_, end)| self.buffer.len() < end) {
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            self.buffer.extend_from_slice(&chunk[..read]);
            if whole.is_none() {
                whole = extent(&self.buffer)?;
            }
        }
        let (head, end) = whole.unwrap_or_default();
        let status =
            std::str::from_utf8(&self.buffer[..head])?.split(' ').nth(1).ok_or("no status")?.parse()?;
        Ok(Answer { status, body: String::from_utf8_lossy(&self.buffer[head..end]).into_owned() })
    }
}

/// Where the head of an answer ends and where the answer does, once the head is there.
fn extent(buffer: &[u8]) -> Result<Option<(usize, usize)>, Failure> {
    let Some(end) = buffer.windows(4).position(|part| part == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.ok_or("an answer without a length")?.trim().parse()?;
    Ok(Some((end + 4, end + 4 + length)))
}
