//! The checks of a request as HTTP, and the treatment of a body that the handler did not read.
//!
//! An answer that comes before its request's body was read leaves the rest of the body on the connection.
//! If the rest is short and arrives at once, it is read and discarded, and the connection stays open.
//! Otherwise the answer says `connection: close`, because the client could not use the connection for its
//! next request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, EXPECT, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tower::ServiceExt as _;

use crate::Peer;
use crate::admission::{Activity, Occupancy};
use crate::connection::Answers;
use crate::refusal::{self, Fields};

/// The longest rest of a body that is read and discarded, in bytes.
const REST_READ: u64 = 64 * 1024;
/// The longest time for reading such a rest.
const REST_TIME: Duration = Duration::from_millis(200);

/// Fields that may occur only once. With two values, a proxy and Ward could each use a different one.
const SINGLE: [HeaderName; 4] =
    [AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName::from_static("idempotency-key")];

/// The client of a connection, shared by the connection's requests.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) peer: Peer,
    pub(crate) place: Arc<Occupancy>,
    /// Whether an answer went out while the client may still be sending.
    pub(crate) still_sending: Arc<AtomicBool>,
}

/// The service of one connection, with its client.
#[derive(Clone)]
pub(crate) struct ForClient<S> {
    pub(crate) inner: S,
    pub(crate) client: Client,
    pub(crate) fields: Arc<Fields>,
    /// The fields of answers that `inner` does not give.
    pub(crate) early: Arc<Fields>,
}

impl<S> hyper::service::Service<Request<Incoming>> for ForClient<S>
where
    S: Answers,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let serving = self.client.place.serving();
        if let Some(problem) = problem(&request) {
            let mut response = refusal::malformed(problem);
            self.early.add_to(response.headers_mut());
            if request.version() <= Version::HTTP_11 {
                self.client.close_after(response.headers_mut());
            }
            return Box::pin(std::future::ready(Ok(response)));
        }
        let (client, inner, fields) = (self.client.clone(), self.inner.clone(), Arc::clone(&self.fields));
        Box::pin(async move {
            let version = request.version();
            let (mut parts, body) = request.into_parts();
            parts.extensions.insert(client.peer);
            let asks_first = parts.headers.contains_key(EXPECT);
            let rest = Arc::new(Mutex::new(None));
            let body = RequestBody {
                body: Some(body),
                rest: Arc::clone(&rest),
                client: client.clone(),
                waiting: None,
            };
            let mut response = inner.oneshot(Request::from_parts(parts, body)).await?;
            fields.add_to(response.headers_mut());
            let rest = rest.lock().take();
            if let Some(rest) = rest
                && version <= Version::HTTP_11
                // A client that asks before it sends must not receive a `100 Continue` now.
                && (asks_first || !forget(rest).await)
            {
                client.close_after(response.headers_mut());
            }
            drop(serving);
            Ok(response)
        })
    }
}

impl Client {
    /// Marks the answer as the last one of the connection.
    fn close_after(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        self.still_sending.store(true, Ordering::Relaxed);
    }
}

/// Reads and discards the rest of a body. The result is `false` if the rest is long, slow or broken.
async fn forget(mut rest: Incoming) -> bool {
    let mut left = REST_READ;
    if rest.size_hint().lower() > left {
        return false;
    }
    let read = async {
        while let Some(frame) = rest.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout(REST_TIME, read).await.unwrap_or(false)
}

/// The violation of HTTP in a request, if there is one (RFC 9112, section 3.2; RFC 9110, section 5.3).
fn problem<B>(request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    if SINGLE.iter().any(|name| headers.get_all(name).iter().nth(1).is_some()) {
        return Some("A header field that has one value was sent twice.");
    }
    match headers.get(HOST) {
        None if request.version() == Version::HTTP_11 => Some("The request has no Host header field."),
        Some(host) if !is_host(host) => Some("The Host header field is not a host."),
        _ => None,
    }
}

/// Whether the value is a host with an optional port. An empty value is valid too: a client sends it when
/// its target has no authority.
fn is_host(value: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(value.as_bytes()) else { return value.is_empty() };
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or("@");
    port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The body of a request. If it is dropped before its end, the connection gets the rest back.
pub struct RequestBody {
    body: Option<Incoming>,
    rest: Arc<Mutex<Option<Incoming>>>,
    client: Client,
    waiting: Option<Activity>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if polled.is_ready() {
            self.waiting = None;
        } else if self.waiting.is_none() {
            self.waiting = Some(self.client.place.waiting());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.rest.lock() = Some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: Version, headers: &[(&'static str, &'static str)]) -> Option<&'static str> {
        let mut request = Request::new(());
        *request.version_mut() = version;
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        problem(&request)
    }

    #[test]
    fn a_request_names_one_host() {
        for host in ["w", "w:80", "w.example", "[::1]:8080", "127.0.0.1", ""] {
            assert_eq!(of(Version::HTTP_11, &[("host", host)]), None, "{host:?}");
        }
        for host in ["a b", "user@w", "w/x", "w:port", "[::1"] {
            assert!(of(Version::HTTP_11, &[("host", host)]).is_some(), "{host:?}");
        }
        assert!(of(Version::HTTP_11, &[]).is_some());
        assert!(of(Version::HTTP_10, &[]).is_none() && of(Version::HTTP_2, &[]).is_none());
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert!(of(version, &[("host", "w"), ("host", "w")]).is_some());
        }
    }

    #[test]
    fn a_credential_is_sent_once() {
        for name in ["authorization", "content-type", "idempotency-key"] {
            assert!(of(Version::HTTP_11, &[("host", "w"), (name, "a")]).is_none());
            assert!(of(Version::HTTP_11, &[("host", "w"), (name, "a"), (name, "a")]).is_some(), "{name}");
            assert!(of(Version::HTTP_2, &[(name, "a"), (name, "b")]).is_some(), "{name}");
        }
    }
}
