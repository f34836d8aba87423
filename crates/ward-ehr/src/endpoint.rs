//! The call of a configured endpoint, and the result made from its answer.

mod shape;
mod way;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::auth::{Auth, Authorized, Tokens};
use crate::client::{Answer, Outbound, Request};
use crate::mask::Mask;
use crate::{Failure, FailureKind, answers, json, template};

use way::TooMuch;

pub use shape::Shape;
pub use way::{LONGEST_WAY, MOST_STEPS, Way};

/// The bound on the first pause before a retry; it doubles with each retry.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A call of a configured endpoint.
#[derive(Clone, Debug)]
pub struct EndpointRequest {
    /// The key of its gate: the integration's id.
    pub gate: String,
    /// The HTTP method of the endpoint.
    pub method: Method,
    /// The URL that the path is appended to.
    pub base_url: String,
    /// The path below the base URL, with placeholders.
    pub path: String,
    /// The headers that the endpoint adds.
    pub headers: HeaderMap,
    /// Whether a body is sent as a form instead of JSON.
    pub form: bool,
    /// The credentials of the integration, if it has any.
    pub auth: Option<Auth>,
    /// The maximum number of retries after the first attempt.
    pub max_retries: u32,
    /// The statuses that allow a retry.
    pub retry_on_status: Vec<u16>,
    /// The steps from the answer to the result.
    pub shape: Shape,
}

/// The outcome of a call, with the result of every step that was reached.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// The time from the start of the first attempt to the end of the last.
    pub duration: Duration,
    /// The number of attempts after the first.
    pub retries: u32,
    /// The answer as JSON if it is JSON, otherwise as text; null if it is empty.
    pub raw: Arc<Value>,
    /// The answer after the filter step.
    pub after_filter: Arc<Value>,
    /// The answer after the mapping step.
    pub after_mapping: Arc<Value>,
    /// The final text for the agent.
    pub final_result: Option<String>,
    /// The reason for a failure, as a sentence.
    pub error: Option<String>,
}

/// A call that has ended. Its answer is not parsed yet, because that takes memory and time.
#[derive(Debug)]
pub struct EndpointAnswer {
    answer: Result<Authorized, Failure>,
    shape: Shape,
    /// Whether the endpoint asks for a page for people.
    wants_page: bool,
    /// The limit on what is made from the answer, in bytes of text.
    most: usize,
    retries: u32,
    duration: Duration,
}

impl EndpointAnswer {
    /// An estimate of the memory that [`Self::read`] needs, in bytes: one tree for the answer, and one for
    /// each step that makes another.
    pub fn weight(&self) -> usize {
        let Ok(authorized) = &self.answer else { return 0 };
        let made = usize::from(self.shape.filter.is_some()) + usize::from(self.shape.mapping.is_some());
        json::weight(&authorized.answer.body).saturating_mul(1 + made)
    }

    /// The outcome of the call. The work grows with the answer. An answer whose [`Self::weight`] exceeds
    /// `most_memory` is not parsed, and the outcome says so.
    pub fn read(self, most_memory: usize) -> Outcome {
        let weight = self.weight();
        let mut outcome = match self.answer {
            Err(failure) => failed(failure.message),
            Ok(authorized) if weight > most_memory => Outcome {
                status: Some(authorized.answer.status.as_u16()),
                ..failed(
                    "the answer holds too many values: parsed, it would take more memory than one call may",
                )
            },
            Ok(authorized) => read(&self.shape, &authorized, self.wants_page, self.most),
        };
        (outcome.retries, outcome.duration) = (self.retries, self.duration);
        outcome
    }
}

impl EndpointRequest {
    /// Makes the call. It ends within the client's total time, no matter how the other side behaves.
    pub async fn send(
        &self,
        outbound: &Outbound,
        tokens: &Tokens,
        params: &Map<String, Value>,
    ) -> EndpointAnswer {
        let started = Instant::now();
        let deadline = started + outbound.limits().total_time;
        let mut retries = 0;
        let answer = self.attempts(outbound, tokens, params, deadline, &mut retries).await;
        let most = outbound.limits().body_bytes;
        let accepted = self.headers.get(ACCEPT).and_then(|told| told.to_str().ok()).unwrap_or_default();
        let wants_page = accepted.to_ascii_lowercase().contains("html");
        let (shape, duration) = (self.shape.clone(), started.elapsed());
        EndpointAnswer { answer, shape, wants_page, most, retries, duration }
    }

    async fn attempts(
        &self,
        outbound: &Outbound,
        tokens: &Tokens,
        params: &Map<String, Value>,
        deadline: Instant,
        retries: &mut u32,
    ) -> Result<Authorized, Failure> {
        let request = self.request(params)?;
        let _place = outbound.enter(&self.gate, deadline).await?;
        loop {
            let tried = Auth::send(self.auth.as_ref(), outbound, tokens, request.clone(), deadline).await;
            let pause = match &tried {
                Ok(authorized) => self.pause_after(&authorized.answer, *retries),
                Err(failure) => self.pause_after_failure(failure, *retries),
            };
            // The other side chooses the pause, so it may exceed what the clock can represent.
            let in_time =
                |pause: &Duration| Instant::now().checked_add(*pause).is_some_and(|then| then < deadline);
            match pause.filter(|pause| *retries < self.max_retries && in_time(pause)) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return tried,
            }
            *retries += 1;
        }
    }

    fn request(&self, params: &Map<String, Value>) -> Result<Request, Failure> {
        let (path, used) = template::fill(&self.path, params)?;
        let mut url = template::below(&self.base_url, &path)?;
        let mut headers = self.headers.clone();
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let rest = || params.iter().filter(|(name, _)| !used.contains(&name.as_str()));
        let mut body = Bytes::new();
        if matches!(self.method, Method::GET | Method::DELETE) {
            for (name, value) in rest() {
                url.query_pairs_mut().append_pair(name, &plain(value));
            }
        } else if self.form {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(rest().map(|(name, value)| (name, plain(value))));
            body = form.finish().into();
        } else {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            let fields: Map<String, Value> =
                rest().map(|(name, value)| (name.clone(), value.clone())).collect();
            body = Value::Object(fields).to_string().into();
        }
        Ok(Request { method: self.method.clone(), url, headers, body })
    }

    /// The pause before another attempt, if this answer allows one.
    fn pause_after(&self, answer: &Answer, retries: u32) -> Option<Duration> {
        self.retry_on_status.contains(&answer.status.as_u16()).then(|| {
            let said = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            said.map_or_else(|| jitter(retries), Duration::from_secs)
        })
    }

    /// The pause after a failure. Only methods that may safely run twice are retried, because the first
    /// attempt may have arrived.
    fn pause_after_failure(&self, failure: &Failure, retries: u32) -> Option<Duration> {
        let passing =
            matches!(failure.kind, FailureKind::Unreachable | FailureKind::Timeout | FailureKind::Garbage);
        let harmless = matches!(self.method, Method::GET | Method::PUT | Method::DELETE);
        (passing && harmless).then(|| jitter(retries))
    }
}

/// Makes the outcome from an answer. `most` limits the result, in bytes of text.
fn read(shape: &Shape, authorized: &Authorized, wants_page: bool, most: usize) -> Outcome {
    let status = authorized.answer.status;
    let mut outcome = Outcome {
        status: Some(status.as_u16()),
        raw: Arc::new(Mask::of(&authorized.used).body(&authorized.answer.body, usize::MAX)),
        ..Outcome::default()
    };
    if !status.is_success() {
        outcome.error = Some(format!("the other side answered {}", status.as_u16()));
        return outcome;
    }
    // A success without the effect: a gateway's page, and a FHIR server's report of an error.
    if !wants_page && answers::is_web_page(&authorized.answer) {
        outcome.error = Some(format!("the other side answered {} with a web page", status.as_u16()));
        return outcome;
    }
    if answers::is_error_outcome(&outcome.raw) {
        outcome.error = Some(format!("the other side answered {} and reports an error", status.as_u16()));
        return outcome;
    }
    // A step that is not configured makes no copy.
    outcome.after_filter = match shape.filter {
        Some(_) => Arc::new(shape.filtered(&outcome.raw)),
        None => outcome.raw.clone(),
    };
    let mapped = match shape.mapping {
        Some(_) => shape.mapped(&outcome.after_filter, most).map(Arc::new),
        None => Ok(outcome.after_filter.clone()),
    };
    let finished = mapped.and_then(|mapped| {
        outcome.after_mapping = mapped;
        shape.finished(&outcome.after_mapping, most)
    });
    match finished {
        Ok(text) => outcome.final_result = Some(text),
        Err(TooMuch) => {
            outcome.error =
                Some(format!("the result of the answer would exceed {most} bytes, or take too long to make"));
        }
    }
    outcome
}

fn failed(why: impl Into<String>) -> Outcome {
    Outcome { error: Some(why.into()), ..Outcome::default() }
}

/// Full jitter: a random pause up to a bound that doubles.
fn jitter(retries: u32) -> Duration {
    let bound = FIRST_PAUSE * 2_u32.saturating_pow(retries.min(6));
    bound.mul_f64(crate::ambient::share())
}

/// A parameter as text, without quotes around a string.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
