//! A request's body: read, parsed and judged.
//!
//! A large body takes longer to parse and to judge than a runtime thread may be held. It is therefore parsed, judged and
//! dropped among the CPU work ([`crate::work`]), as part of its workspace's or its address's share.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::contract::Operation;
use super::validate::{self, BodyRefused, Json, Parsed, Present, Problem};
use super::{Call, typed};
use crate::app::App;
use crate::error::ApiError;
use crate::shares::Holder;

/// Bodies up to this many bytes are parsed and judged where they are read: that takes well below a millisecond.
const SMALL: usize = 16 * 1024;

/// A body whose syntax is right.
pub struct SentBody {
    bytes: Bytes,
    /// `None` once the body was judged.
    parsed: Option<Parsed>,
    holder: Holder,
    /// Whether its judgement takes long whatever its length.
    heavy: bool,
}

/// A valid body.
pub struct Sent<T> {
    /// As it was sent, byte for byte.
    pub bytes: Bytes,
    /// What it means: trimmed, coerced, defaults filled in.
    pub value: T,
    /// Which fields it holds itself.
    pub present: Present,
}

/// Runs `work` here for a small body, among the CPU work for a large one.
async fn run<T: Send + 'static>(
    app: &App,
    holder: Holder,
    length: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if length <= SMALL { Ok(work()) } else { app.work.run(holder, work).await }
}

impl Call {
    /// Reads the body of a caller who is not known: its size (413), its encoding (400), its syntax (422).
    pub async fn read_body(&mut self) -> Result<SentBody, ApiError> {
        self.read_body_of(self.context.holder()).await
    }

    /// The same of a caller whose share is known.
    pub async fn read_body_of(&mut self, holder: Holder) -> Result<SentBody, ApiError> {
        let bytes = self.read_ignored_body().await?;
        let content_type = self.parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let content_type = content_type.map(|value| String::from_utf8_lossy(value).into_owned());
        let depth = self.app.config.limits.json_depth;
        let sent = bytes.clone();
        let parsed = run(&self.app, holder, bytes.len(), move || {
            validate::parse(content_type.as_deref(), &sent, depth)
        });
        match parsed.await? {
            Ok(parsed) => Ok(SentBody { bytes, parsed: Some(parsed), holder, heavy: false }),
            Err(BodyRefused::NotUtf8) => Err(ApiError::not_utf8()),
            Err(BodyRefused::Problems(problems)) => Err(ApiError::invalid(problems)),
        }
    }
}

impl SentBody {
    /// The same body, judged among the CPU work whatever its length.
    #[must_use]
    pub fn heavy(mut self) -> Self {
        self.heavy = true;
        self
    }

    /// The body as it was sent.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Judges the values against the operation's schema and rules (422).
    pub async fn valid<T>(self, call: &Call) -> Result<Sent<T>, ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.valid_and(call, |_| Vec::new()).await
    }

    /// Judges the values, with problems of the caller's own besides.
    pub async fn valid_and<T>(
        mut self,
        call: &Call,
        more: impl FnOnce(&Json) -> Vec<Problem> + Send + 'static,
    ) -> Result<Sent<T>, ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let parsed = self.parsed.take().unwrap_or(Parsed::Missing);
        let operation = call.operation.clone();
        let length = if self.heavy { usize::MAX } else { self.bytes.len() };
        let judged = run(&call.app, self.holder, length, move || judge(&operation, &parsed, more));
        let (value, present) = judged.await??;
        Ok(Sent { bytes: self.bytes.clone(), value, present })
    }
}

impl Drop for SentBody {
    /// A large body that was parsed and never judged is not dropped on a runtime thread: it has a great many parts.
    fn drop(&mut self) {
        if self.bytes.len() > SMALL
            && let Some(parsed) = self.parsed.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn_blocking(move || drop(parsed)));
        }
    }
}

fn judge<T: DeserializeOwned>(
    operation: &Arc<Operation>,
    parsed: &Parsed,
    more: impl FnOnce(&Json) -> Vec<Problem>,
) -> Result<(T, Present), ApiError> {
    let judged = validate::body(operation, parsed);
    let own = match parsed {
        Parsed::Json(given) => more(given),
        Parsed::Missing | Parsed::Text(_) => Vec::new(),
    };
    match judged {
        Ok(body) if own.is_empty() => Ok((typed(&body.value)?, body.present)),
        Ok(_) => Err(ApiError::invalid(own)),
        Err(mut problems) => {
            problems.extend(own);
            Err(ApiError::refused(problems))
        }
    }
}
