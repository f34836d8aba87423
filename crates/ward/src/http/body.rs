//! A request's body: read, parsed and validated.
//!
//! A large body takes longer to parse and validate than a request may hold a runtime thread. It is
//! therefore parsed, validated and dropped as CPU work ([`crate::work`]), within the share of its workspace
//! or address. Parsed, a body may take a hundred times its length in memory. So it is parsed and validated in one piece
//! of work: no more bodies are parsed at once than pieces run.
//!
//! Bodies that are read, or wait to be validated, have a share of memory ([`MEMORY`]).

use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody as _;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use ward_contract::Operation;
use ward_contract::validate::{self, BodyRefused, Json, ParsedBody, Present, Problem};

use super::{Request, typed};
use crate::app::App;
use crate::error::ApiError;
use crate::shares::{Holder, Limits};

/// Bodies up to this many bytes are parsed and validated on the runtime's thread, which takes well below a
/// millisecond.
const SMALL: usize = 16 * 1024;

/// The memory for the bodies of requests under way, KiB. A workspace or address may have an eighth of it, and its first
/// mebibyte as long as any is free.
pub const MEMORY: Limits =
    Limits { total: 256 * 1024, each: 32 * 1024, first: 1024, beyond: 192 * 1024, waiting_each: 4096 };

/// How long a body waits for memory.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A body that was read, but not parsed yet.
pub struct SentBody {
    bytes: Bytes,
    content_type: Option<String>,
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
    /// Reads the body of an unauthenticated caller: size (413).
    pub async fn read_body(&mut self) -> Result<SentBody, ApiError> {
        self.read_body_of(self.context.holder()).await
    }

    /// As [`Self::read_body`], with a bound of the operation's own in place of the configured one.
    pub async fn read_body_up_to(&mut self, most: usize) -> Result<SentBody, ApiError> {
        let holder = self.context.holder();
        let bytes = self.read_bytes_within(holder, most).await?;
        Ok(self.sent(bytes, holder))
    }

    /// As [`Self::read_body`], for a caller whose share is known.
    pub async fn read_body_of(&mut self, holder: Holder) -> Result<SentBody, ApiError> {
        let bytes = self.read_bytes_of(holder, usize::MAX).await?;
        Ok(self.sent(bytes, holder))
    }

    fn sent(&self, bytes: Bytes, holder: Holder) -> SentBody {
        let content_type = self.parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let content_type = content_type.map(|value| String::from_utf8_lossy(value).into_owned());
        SentBody { bytes, content_type, holder, heavy: false }
    }

    /// Reads up to `most` bytes of a body within the holder's share of memory, which they keep until the request ends.
    pub async fn read_bytes_of(&mut self, holder: Holder, most: usize) -> Result<Bytes, ApiError> {
        self.read_bytes_within(holder, self.app.config.body_bytes.min(most)).await
    }

    async fn read_bytes_within(&mut self, holder: Holder, limit: usize) -> Result<Bytes, ApiError> {
        let announced =
            self.parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > limit) {
            return Err(ApiError::too_large());
        }
        let body = std::mem::take(self.body.get_mut());
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        // A body without an announced length may become as long as any, and could not wait for memory later.
        let taking = self.app.bodies.take(holder, units(announced.unwrap_or(limit)));
        let mut memory = match tokio::time::timeout(LONGEST_WAIT, taking).await {
            Ok(taken) => taken.map_err(ApiError::share_used_up)?,
            Err(elapsed) => return Err(ApiError::share_used_up(elapsed)),
        };
        let bytes = match Limited::new(body, limit).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(ApiError::too_large()),
            Err(error) => return Err(ApiError::broken_body(error)),
        };
        // It never grows, so no share is missing.
        let _ = memory.resize(units(bytes.len()).min(memory.units()));
        let _ = self.context.body.set(memory);
        Ok(bytes)
    }
}

/// Bytes of a body as units of the pool.
fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl SentBody {
    /// The bytes of the body as they were sent, unchecked: for a signature over them.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the request has no body.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Marks the body for validation as CPU work even if it is short.
    #[must_use]
    pub fn heavy(mut self) -> Self {
        self.heavy = true;
        self
    }

    /// Checks the encoding (400) and the syntax (422) for a caller who is refused before the values are validated.
    pub async fn check_syntax(&self, request: &Request) -> Result<(), ApiError> {
        let (content_type, sent) = (self.content_type.clone(), self.bytes.clone());
        let depth = request.app.config.json_depth;
        let checked = run(&request.app, self.holder, sent.len(), move || {
            validate::parse(content_type.as_deref(), &sent, depth).map(drop).map_err(not_json)
        });
        checked.await?
    }

    /// The bytes of the body as they were sent, once their encoding and syntax are checked.
    pub async fn checked_bytes(self, request: &Request) -> Result<Bytes, ApiError> {
        self.check_syntax(request).await?;
        Ok(self.bytes)
    }

    /// Checks the encoding (400) and the syntax (422), and validates the values by the operation's schema and rules (422).
    pub async fn valid<T>(self, request: &Request) -> Result<Sent<T>, ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.valid_and(request, |_| Vec::new()).await
    }

    /// Validates the values, and adds the problems that `more` finds.
    pub async fn valid_and<T>(
        self,
        request: &Request,
        more: impl FnOnce(&Json) -> Vec<Problem> + Send + 'static,
    ) -> Result<Sent<T>, ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Self { bytes, content_type, holder, heavy } = self;
        let (operation, sent) = (request.operation.clone(), bytes.clone());
        let depth = request.app.config.json_depth;
        let length = if heavy { usize::MAX } else { bytes.len() };
        let judged = run(&request.app, holder, length, move || {
            let parsed = validate::parse(content_type.as_deref(), &sent, depth).map_err(not_json)?;
            judge(&operation, &parsed, more)
        });
        let (value, present) = judged.await??;
        Ok(Sent { bytes, value, present })
    }
}

fn not_json(refused: BodyRefused) -> ApiError {
    match refused {
        BodyRefused::NotUtf8 => ApiError::not_utf8(),
        BodyRefused::Problems(problems) => ApiError::invalid(problems),
    }
}

fn judge<T: DeserializeOwned>(
    operation: &Arc<Operation>,
    parsed: &ParsedBody,
    more: impl FnOnce(&Json) -> Vec<Problem>,
) -> Result<(T, Present), ApiError> {
    let judged = validate::body(operation, parsed);
    let own = match parsed {
        ParsedBody::Json(given) => more(given),
        ParsedBody::Missing | ParsedBody::Text(_) => Vec::new(),
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
