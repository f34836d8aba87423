//! The answers that a server gives outside its router: to surplus connections and to malformed HTTP.
//!
//! They have the shape of every other error, because a client cannot know which layer refused it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use uuid::Uuid;

/// How long a refused client may take to read the answer. A close with its request unread would reset the
/// connection, and the reset can reach the client before the answer.
const LINGER: Duration = Duration::from_millis(500);

/// Header fields that every answer of a listener has, as a map and as the lines of a head.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    map: HeaderMap,
    lines: String,
}

impl Fields {
    /// `lines` omits values that are not text. The values of settings always are.
    pub(crate) fn new(map: &HeaderMap) -> Self {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            value.to_str().ok().map(|value| format!("{name}: {value}\r\n"))
        };
        Self { map: map.clone(), lines: map.iter().filter_map(line).collect() }
    }

    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.map {
            headers.insert(name, value.clone());
        }
    }
}

/// Answers 503 to the first request on `stream` without reading it, and closes the connection.
pub(crate) async fn too_many_connections(mut stream: TcpStream, fields: &Fields) {
    let body = body("Too many connections are open. Try again shortly.", "too_many_connections");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\n{}{}retry-after: 1\r\nconnection: close\r\n\r\n{}",
        body.headers(),
        fields.lines,
        body.json
    );
    // The buffer of a new socket is empty, so the answer fits, or the client has gone.
    if stream.try_write(answer.as_bytes()).is_ok() {
        linger(&mut stream).await;
    }
}

/// The answer to a malformed HTTP request: status 400.
pub(crate) fn malformed(problem: &str) -> Response {
    let body = body(problem, "malformed_request");
    let mut response = Response::new(axum::body::Body::from(body.json));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&body.request_id.to_string()) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}

/// Closes the sending half, then reads and discards for [`LINGER`], so that the answer arrives before a
/// reset.
pub(crate) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let drain = async {
        let _ = stream.shutdown().await;
        let mut sink = [0; 4096];
        while let Ok(1..) = stream.read(&mut sink).await {}
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

struct Body {
    json: String,
    request_id: Uuid,
}

impl Body {
    /// The header fields of the body, each with its line end.
    fn headers(&self) -> String {
        format!(
            "content-type: application/json\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
             x-content-type-options: nosniff\r\nx-request-id: {}\r\n",
            self.json.len(),
            self.request_id
        )
    }
}

fn body(detail: &str, error_code: &str) -> Body {
    #[expect(clippy::disallowed_methods, reason = "nothing compares the ids of refused connections")]
    let request_id = Uuid::now_v7();
    let json =
        serde_json::json!({"detail": detail, "error_code": error_code, "request_id": request_id.to_string()});
    Body { json: json.to_string(), request_id }
}

/// Gives the standard error body to the answers that hyper makes itself (400, 414 and 431, all without a
/// body).
///
/// hyper has no hook for these answers. The stream recognises them when they are written: one whole answer
/// without a body and without `x-request-id`, which all answers of Ward have. If one shares its write with
/// the end of an earlier, pipelined answer, it goes out without a body.
pub(crate) struct RefusalStream<T> {
    inner: T,
    fields: Arc<Fields>,
    /// The answer with a body that replaces the one of hyper, and the number of its bytes already written.
    instead: Option<(Vec<u8>, usize)>,
}

impl<T> RefusalStream<T> {
    pub(crate) fn new(inner: T, fields: Arc<Fields>) -> Self {
        Self { inner, fields, instead: None }
    }
}

impl<T: AsyncWrite + Unpin> RefusalStream<T> {
    /// Writes the replacement to its end, then reports the `bare` bytes of hyper's answer as written.
    fn poll_instead(&mut self, cx: &mut Context<'_>, bare: usize) -> Poll<io::Result<usize>> {
        while let Some((answer, written)) = &mut self.instead {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &answer[*written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
            if *written == answer.len() {
                self.instead = None;
            }
        }
        Poll::Ready(Ok(bare))
    }

    /// Whether `buffer` is replaced by another answer. The usual case costs one comparison of ten bytes.
    fn replaces(&mut self, buffer: &[u8]) -> bool {
        if self.instead.is_none() && buffer.starts_with(b"HTTP/1.1 4") {
            self.instead = spoken(buffer, &self.fields).map(|answer| (answer, 0));
        }
        self.instead.is_some()
    }
}

/// The same answer with a JSON body. The result is `None` if `answer` is not one that hyper made itself.
fn spoken(answer: &[u8], fields: &Fields) -> Option<Vec<u8>> {
    let (detail, error_code) = match answer.get(9..12)? {
        b"400" => ("The request is not valid HTTP.", "malformed_request"),
        b"414" => ("The request's target is too long.", "uri_too_long"),
        b"431" => ("The request's header fields are too large.", "headers_too_large"),
        _ => return None,
    };
    let head = std::str::from_utf8(answer).ok()?.strip_suffix("\r\n\r\n")?;
    if head.contains("\r\n\r\n")
        || !head.contains("\r\ncontent-length: 0")
        || head.contains("\r\nx-request-id:")
    {
        return None;
    }
    let body = body(detail, error_code);
    let kept = head.replacen("\r\ncontent-length: 0", "", 1);
    Some(format!("{kept}\r\n{}{}\r\n{}", body.headers(), fields.lines, body.json).into_bytes())
}

impl<T: AsyncRead + Unpin> AsyncRead for RefusalStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for RefusalStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(buffer) {
            return self.poll_instead(cx, buffer.len());
        }
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper's own answers have no body, so they are one slice.
        if let [first, rest @ ..] = buffers
            && rest.iter().all(|slice| slice.is_empty())
            && self.replaces(first)
        {
            return self.poll_instead(cx, first.len());
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_answer_is_put_into_words() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Mon\r\n\r\n";
        let map = HeaderMap::from_iter([(HeaderName::from_static("x-of"), HeaderValue::from_static("all"))]);
        let text = String::from_utf8(spoken(bare, &Fields::new(&map)).unwrap()).unwrap();
        assert!(text.starts_with(
            "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ndate: Mon\r\n"
        ));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(head.contains("\r\nx-of: all"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error_code"], "headers_too_large");
        assert!(head.contains(body["request_id"].as_str().unwrap()));
    }

    #[test]
    fn answers_of_the_product_go_out_as_they_are() {
        for answer in [
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(spoken(answer.as_bytes(), &Fields::default()).is_none(), "{answer}");
        }
    }
}
