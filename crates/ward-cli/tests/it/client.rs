//! A client that knows exactly how far each request came: not sent, sent and cut off, or answered.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A server allows a request 15 s; the rest is for a busy machine. Without this limit the client would hide a
/// hang.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    pub fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.to_ascii_lowercase().starts_with(&format!("{header}:")))
    }

    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_else(|| panic!("{field} in {self:?}"))
    }
}

/// The reason why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No server listens, so no byte was sent.
    Refused,
    /// The request was sent at least in part, and then the connection broke.
    Cut,
}

#[derive(Clone, Default)]
pub struct Call {
    method: &'static str,
    path: String,
    bearer: Option<String>,
    repeat: Option<String>,
    body: Option<Value>,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), ..Self::default() }
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: "DELETE", path: path.into(), ..Self::default() }
    }

    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: "POST", path: path.into(), body: Some(body), ..Self::default() }
    }

    pub fn put(path: impl Into<String>, body: Value) -> Self {
        Self { method: "PUT", ..Self::post(path, body) }
    }

    pub fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { method: "PATCH", ..Self::post(path, body) }
    }

    pub fn by(mut self, key: &str) -> Self {
        self.bearer = Some(key.to_owned());
        self
    }

    pub fn repeatable(mut self, key: impl Into<String>) -> Self {
        self.repeat = Some(key.into());
        self
    }

    fn text(&self) -> String {
        let line = |name: &str, value: &str| format!("{name}: {value}\r\n");
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        text += "host: ward\r\nconnection: close\r\n";
        if let Some(key) = &self.bearer {
            text += &line("authorization", &format!("Bearer {key}"));
        }
        if let Some(key) = &self.repeat {
            text += &line("idempotency-key", key);
        }
        if !body.is_empty() {
            text += &line("content-type", "application/json");
            text += &line("content-length", &body.len().to_string());
        }
        text + "\r\n" + &body
    }

    fn sent(&self, to: SocketAddr) -> Result<TcpStream, NoAnswer> {
        let mut stream = TcpStream::connect(to).map_err(|_| NoAnswer::Refused)?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(self.text().as_bytes()).map_err(|_| NoAnswer::Cut)?;
        Ok(stream)
    }

    /// Sends the request over a connection of its own.
    pub fn attempt(&self, to: SocketAddr) -> Result<Answer, NoAnswer> {
        let mut stream = self.sent(to)?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        if let Err(error) = &read {
            assert!(
                !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                "no answer within {PATIENCE:?}: {} {}",
                self.method,
                self.path
            );
        }
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").ok_or(NoAnswer::Cut)?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if body.len() < length {
            return Err(NoAnswer::Cut);
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(NoAnswer::Cut)?;
        Ok(Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or(Value::Null) })
    }

    /// Sends the request to a server that must answer.
    #[track_caller]
    pub fn ask(&self, to: SocketAddr) -> Answer {
        self.attempt(to).unwrap_or_else(|gone| panic!("{} {}: {gone:?}", self.method, self.path))
    }

    /// Sends the request, and hangs up after `enough` without reading the answer.
    pub fn cut(&self, to: SocketAddr, enough: impl FnOnce()) {
        let stream = self.sent(to).unwrap();
        enough();
        let _ = stream.shutdown(Shutdown::Both);
    }
}
