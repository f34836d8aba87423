//! One connection: it sends a request and reads the answer.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;
use crate::workload::Script;

/// The most header fields that an answer may have.
const HEADERS: usize = 48;

/// A connection with the script of its requests.
pub struct Connection {
    stream: TcpStream,
    script: Script,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(to: SocketAddr, script: Script) -> Result<Self, Failure> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, script, request: Vec::with_capacity(1024), answer: Vec::with_capacity(16 << 10) })
    }

    /// Sends the next request and reads its whole answer. An answer with an unexpected status is an error.
    pub async fn ask(&mut self) -> Result<(), Failure> {
        let expected = self.script.next(&mut self.request);
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            match whole(&self.answer)? {
                None => {}
                Some(status) if status == expected => return Ok(()),
                Some(_) => return Err(self.wrong(expected)),
            }
        }
    }

    fn wrong(&self, expected: u16) -> Failure {
        let asked = String::from_utf8_lossy(&self.request);
        let asked = asked.lines().next().unwrap_or_default();
        format!("{asked}: the answer is not {expected}: {}", String::from_utf8_lossy(&self.answer)).into()
    }
}

/// The status of the answer, as soon as the answer is complete.
fn whole(answer: &[u8]) -> Result<Option<u16>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(answer)? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some(length) => std::str::from_utf8(length.value)?.parse()?,
        // RFC 9110, section 15.3.5: a 204 has no body, and section 8.6: no length.
        None if head.code == Some(204) => 0,
        None => return Err("the content-length is missing".into()),
    };
    match answer.len().checked_sub(end + length) {
        None => Ok(None),
        Some(0) => Ok(head.code),
        Some(_) => Err("the connection has bytes after the answer".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let text = b"HTTP/1.1 201 Created\r\nServer: x\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..text.len() {
            assert_eq!(whole(&text[..end]).unwrap(), None);
        }
        assert_eq!(whole(text).unwrap(), Some(201));
        assert!(whole(&[&text[..], b"d"].concat()).is_err());
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert_eq!(whole(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some(204));
        assert!(whole(b"SSH-2.0\r\n\r\n").is_err());
    }
}
