//! One persistent connection with one request at a time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Failure;

/// A request and the expected status of its answer.
pub struct Request {
    /// The head and the body as they are sent.
    bytes: Vec<u8>,
    /// The status of the right answer.
    pub expected: u16,
}

pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Request {
    /// A `GET` request with a bearer token.
    pub fn get(path: &str, bearer: &str, expected: u16) -> Self {
        let text = format!("GET {path} HTTP/1.1\r\nhost: scale\r\nauthorization: Bearer {bearer}\r\n\r\n");
        Self { bytes: text.into_bytes(), expected }
    }

    /// A `POST` request with a JSON body, whose right answer has the status 201.
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

/// A persistent connection and the bytes that were read from it.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
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

/// The end of the head and the end of the answer, as soon as the head is complete.
fn extent(buffer: &[u8]) -> Result<Option<(usize, usize)>, Failure> {
    let Some(end) = buffer.windows(4).position(|part| part == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.ok_or("the content-length is missing")?.trim().parse()?;
    Ok(Some((end + 4, end + 4 + length)))
}
