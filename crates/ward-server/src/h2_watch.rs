//! The detection of HTTP/2 connections without progress.
//!
//! An HTTP/1 socket shows whether its client reads. An HTTP/2 client can answer pings for ever and never
//! open its window for an answer. Progress is therefore counted at requests and at pieces of answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use tokio::time::Instant;

use crate::Limits;

/// The time of the last progress on a connection, and the number of its current requests.
pub(crate) struct Activity {
    start: Instant,
    /// The time of the last progress, in milliseconds after `start`.
    last: AtomicU64,
    in_flight: AtomicUsize,
    when_idle: Duration,
    when_busy: Duration,
}

impl Activity {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            when_idle: limits.header_time,
            // A handler may run for `request_time` before the first piece of its answer.
            when_busy: limits.request_time + limits.write_idle,
        }
    }

    /// The time at which the connection is closed unless it makes progress before.
    pub(crate) fn deadline(&self) -> Instant {
        let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
        last + if self.in_flight.load(Ordering::Relaxed) == 0 { self.when_idle } else { self.when_busy }
    }

    fn moved(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }
}

/// One current request. It ends when the body of its answer is dropped.
struct InFlight(Arc<Activity>);

impl InFlight {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        activity.moved();
        Self(Arc::clone(activity))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.moved();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A service whose requests count as progress.
pub(crate) struct WatchedService<S> {
    inner: S,
    activity: Arc<Activity>,
}

impl<S> WatchedService<S> {
    pub(crate) fn new(inner: S, activity: Arc<Activity>) -> Self {
        Self { inner, activity }
    }
}

impl<S> Service<Request<Incoming>> for WatchedService<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<WatchedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::new(&self.activity);
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(|inner| WatchedBody { inner, in_flight })) })
    }
}

/// A body whose pieces count as progress.
pub(crate) struct WatchedBody {
    inner: Body,
    in_flight: InFlight,
}

impl hyper::body::Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.in_flight.0.moved();
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
