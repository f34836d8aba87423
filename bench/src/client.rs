//! A simple client for the preparation of a measurement: one request at a time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::Failure;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Answer {
    pub status: u16,
    /// The body as text. The server must end it by closing the connection.
    pub body: String,
}

impl Answer {
    /// The body as JSON. An answer with another status is an error.
    pub fn expect(&self, status: u16) -> Result<Value, Failure> {
        if self.status != status {
            return Err(format!("the status is {} instead of {status}: {}", self.status, self.body).into());
        }
        Ok(if self.body.is_empty() { Value::Null } else { serde_json::from_str(&self.body)? })
    }
}

/// Sends one request on a new connection.
pub fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    bearer: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer, Failure> {
    let bearer = bearer.map(|bearer| format!("authorization: Bearer {bearer}\r\n")).unwrap_or_default();
    let body = body.map(ToString::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n{bearer}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no complete head")?;
    let status = head.split(' ').nth(1).ok_or("the answer has no status")?.parse()?;
    Ok(Answer { status, body: body.to_owned() })
}
