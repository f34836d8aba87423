//! A request's body: read, parsed and validated.
//!
//! A large body takes longer to parse and validate than a request may hold a runtime thread. It is
//! therefore parsed, validated and dropped as CPU work ([`crate::work`]), within the share of its workspace
//! or address.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use ward_contract::Operation;
use ward_contract::validate::{self, BodyRefused, Json, Parsed, Present, Problem};

use super::{Request, typed};
use crate::app::App;
use crate::error::ApiError;
use crate::shares::Holder;

/// Bodies up to this many bytes are parsed and validated on the runtime's thread, which takes well below a
/// millisecond.
const SMALL: usize = 16 * 1024;

/// A body with valid syntax.
pub struct SentBody {
    bytes: Bytes,
    /// `None` after the validation.
    parsed: Option<Parsed>,
    holder: Holder,
    /// Whether the validation takes long even for a short body.
    heavy: bool,
}

/// A body that passed the validation, deserialized into `T`.
pub struct Sent<T> {
    /// The bytes of the body as they were sent.
    pub bytes: Bytes,
    /// The value after trimming, coercion and defaults.
    pub value: T,
    /// The fields that the body itself contains.
    pub present: Present,
}

/// Runs `work` on this thread for a small body, and as CPU work for a large one.
async fn run<T: Send + 'static>(
    app: &App,
    holder: Holder,
    length: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if length <= SMALL { Ok(work()) } else { app.work.run(holder, work).await }
}

impl Request {
    /// Reads the body of an unauthenticated caller: size (413), encoding (400), syntax (422).
    pub async fn read_body(&mut self) -> Result<SentBody, ApiError> {
        self.read_body_of(self.context.holder()).await
    }

    /// As [`Self::read_body`], for a caller whose share is known.
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
    /// Marks the body for validation as CPU work even if it is short.
    #[must_use]
    pub fn heavy(mut self) -> Self {
        self.heavy = true;
        self
    }

    /// The bytes of the body as they were sent.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Validates the values by the operation's schema and rules (422).
    pub async fn valid<T>(self, request: &Request) -> Result<Sent<T>, ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.valid_and(request, |_| Vec::new()).await
    }

    /// Validates the values, and adds the problems that `more` finds.
    pub async fn valid_and<T>(
        mut self,
        request: &Request,
        more: impl FnOnce(&Json) -> Vec<Problem> + Send + 'static,
    ) -> Result<Sent<T>, ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let parsed = self.parsed.take().unwrap_or(Parsed::Missing);
        let operation = request.operation.clone();
        let length = if self.heavy { usize::MAX } else { self.bytes.len() };
        let judged = run(&request.app, self.holder, length, move || judge(&operation, &parsed, more));
        let (value, present) = judged.await??;
        Ok(Sent { bytes: self.bytes.clone(), value, present })
    }
}

impl Drop for SentBody {
    /// A large body that was parsed but not validated is not dropped on a runtime thread, because it has a
    /// great many parts.
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
