//! A configured endpoint's call, and what is made of its answer.

mod shape;
mod way;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method};
use rand::Rng as _;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::auth::{Auth, Authorized, Tokens};
use crate::client::{Answer, Outbound, Request};
use crate::mask::Mask;
use crate::{Failure, FailureKind, json, template};

use way::TooMuch;

pub use shape::Shape;
pub use way::{LONGEST_WAY, MOST_STEPS, Way};

/// The first pause before a retry; each later one is up to twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A call to make.
#[derive(Clone, Debug)]
pub struct Call {
    /// Whose place at the gate it takes: the integration's id.
    pub gate: String,
    /// The method.
    pub method: Method,
    /// Where paths begin.
    pub base_url: String,
    /// The path, with placeholders.
    pub path: String,
    /// Headers of the endpoint's own.
    pub headers: HeaderMap,
    /// Whether a body is a form rather than JSON.
    pub form: bool,
    /// How it authenticates.
    pub auth: Option<Auth>,
    /// How often it is tried again.
    pub max_retries: u32,
    /// After which statuses.
    pub retry_on_status: Vec<u16>,
    /// What is made of its answer.
    pub shape: Shape,
}

/// What came of a call: every step that was reached.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// From the first try's start to the last one's end.
    pub duration: Duration,
    /// Tries after the first.
    pub retries: u32,
    /// The answer: JSON where it is, else text; null when empty.
    pub raw: Arc<Value>,
    /// What the filter left of it.
    pub after_filter: Arc<Value>,
    /// What the mapping made of that.
    pub after_mapping: Arc<Value>,
    /// The text in the end.
    pub final_result: Option<String>,
    /// Why it did not go well.
    pub error: Option<String>,
}

/// A call that has ended. Its answer is not parsed yet, because that takes memory and time.
#[derive(Debug)]
pub struct Ended {
    answer: Result<Authorized, Failure>,
    shape: Shape,
    /// The bound on what is made of the answer, bytes of text.
    most: usize,
    retries: u32,
    duration: Duration,
}

impl Ended {
    /// An estimate of the memory that [`Self::read`] takes, bytes: a tree for the answer and one for each step that makes
    /// another of it.
    pub fn weight(&self) -> usize {
        let Ok(authorized) = &self.answer else { return 0 };
        let made = usize::from(self.shape.filter.is_some()) + usize::from(self.shape.mapping.is_some());
        json::weight(&authorized.answer.body).saturating_mul(1 + made)
    }

    /// What came of the call. The work grows with the answer. An answer whose [`Self::weight`] is above `most_memory` is
    /// not parsed, and the outcome says so.
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
            Ok(authorized) => read(&self.shape, &authorized, self.most),
        };
        (outcome.retries, outcome.duration) = (self.retries, self.duration);
        outcome
    }
}

impl Call {
    /// Makes the call. Whatever the other side does, this ends within the client's total time.
    pub async fn send(&self, outbound: &Outbound, tokens: &Tokens, params: &Map<String, Value>) -> Ended {
        let started = Instant::now();
        let deadline = started + outbound.limits().total_time;
        let mut retries = 0;
        let answer = self.attempts(outbound, tokens, params, deadline, &mut retries).await;
        let most = outbound.limits().body_bytes;
        Ended { answer, shape: self.shape.clone(), most, retries, duration: started.elapsed() }
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
            // The other side chooses the pause, so it may be one that no clock can hold.
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

    /// How long to wait before another try, if this answer calls for one.
    fn pause_after(&self, answer: &Answer, retries: u32) -> Option<Duration> {
        self.retry_on_status.contains(&answer.status.as_u16()).then(|| {
            let said = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            said.map_or_else(|| jitter(retries), Duration::from_secs)
        })
    }

    /// The same after a failure: only what can be done twice without harm is tried again, because the first may have
    /// arrived.
    fn pause_after_failure(&self, failure: &Failure, retries: u32) -> Option<Duration> {
        let passing =
            matches!(failure.kind, FailureKind::Unreachable | FailureKind::Timeout | FailureKind::Garbage);
        let harmless = matches!(self.method, Method::GET | Method::PUT | Method::DELETE);
        (passing && harmless).then(|| jitter(retries))
    }
}

/// What came of an answer. `most` bounds what is made of it, bytes of text.
fn read(shape: &Shape, authorized: &Authorized, most: usize) -> Outcome {
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
                Some(format!("more is made of the answer than {most} bytes, or than can be in time"));
        }
    }
    outcome
}

fn failed(why: impl Into<String>) -> Outcome {
    Outcome { error: Some(why.into()), ..Outcome::default() }
}

/// Full jitter: anything up to a bound that doubles.
fn jitter(retries: u32) -> Duration {
    let bound = FIRST_PAUSE * 2_u32.saturating_pow(retries.min(6));
    bound.mul_f64(rand::rng().random::<f64>())
}

/// A parameter as flat text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
